"""One thread for each process, and Ctrl-C that interrupts, however the tests were started."""

import signal

import torch

torch.set_num_threads(1)  # on a shared machine, threads that wait for each other cost more than they give
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what it runs in the background
