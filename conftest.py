"""nbval starts its kernels as the tools do."""

import jupyter_client
import nbval.kernel

from tools import kernels


def _manager(**settings):
    return jupyter_client.KernelManager(**kernels.transport(), **settings)


nbval.kernel.KernelManager = _manager
