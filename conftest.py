"""Kernels that nbval starts talk through files, not ports: they run where there is no network."""

import sys

import jupyter_client

if sys.platform != "win32":
    jupyter_client.KernelManager.transport.default_value = "ipc"
