"""Protocols: which images are tuned on, and which are scored."""

from collections.abc import Mapping

from maotune.protocols.adapt import Adapt
from maotune.protocols.base_to_new import BaseToNew
from maotune.protocols.cross_dataset import CrossDataset
from maotune.protocols.few_shot import FewShot
from maotune.protocols.protocol import Protocol

PROTOCOLS: Mapping[str, Protocol] = {
    protocol.name: protocol for protocol in (BaseToNew(), CrossDataset(), FewShot(), Adapt())
}
"""All protocols by name."""
