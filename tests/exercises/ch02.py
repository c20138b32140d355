"""What readers get wrong in chapter 02, and what they should be told."""

MISTAKES = {
    "02.1": [
        ("strides forgotten", {"        apart *= stride\n": ""}, "reach twice as far"),
        ("its own stride first", {"width += (kernel - 1) * apart\n        apart *= stride":
                                  "apart *= stride\n        width += (kernel - 1) * apart"},
         "counts for those after it"),
        ("kernel, not kernel - 1", {"(kernel - 1)": "kernel"}, "not 4"),
        ("from nothing", {"width, apart = 1, 1": "width, apart = 0, 1"}, "not 2"),
        ("only its own stride", {"* apart": "* stride", "        apart *= stride\n": ""},
         "forgotten by the next"),
        ("strides added", {"apart *= stride": "apart += stride - 1"}, "don't add up"),
        ("only the last stride", {"apart *= stride": "apart = max(stride, apart)"},
         "4 pixels apart"),
        ("returned in the loop", {"    return width": "        return 1"}, "inside the loop"),
    ],
    "02.2": [
        ("sixteen", {"// 32": "// 16"}, "not four"),
        ("a square", {"384": "256"}, "a square image"),
        ("rows plus columns", {") * (": ") + ("}, "their product"),
        ("stretched", {"(256 // 32) * (384 // 32)": "196"}, "is the stretched grid"),
        ("the paper's side", {"14 * 32": "224"}, "would be 7×7"),
        ("cells for pixels", {"14 * 32": "14"}, "how many pixels"),
        ("a guess", {"14 * 32": "300"}, "too small"),
        ("a pixel too many", {"14 * 32": "449"}, "too large"),
    ],
    "02.3": [
        ("reshape", {"maps.flatten(2).transpose(1, 2)":
                     "maps.reshape(len(maps), -1, maps.shape[1])"}, "splits the numbers"),
        ("not transposed", {".transpose(1, 2)": ""}, "this is (B, D, P)"),
        ("still a grid", {"maps.flatten(2).transpose(1, 2)": "maps.permute(0, 2, 3, 1)"},
         "the grid is still a grid"),
        ("down the columns", {"maps.flatten(2)": "maps.transpose(2, 3).flatten(2)"},
         "down the columns"),
        ("averaged", {"maps.flatten(2).transpose(1, 2)": "maps.mean(dim=(2, 3))"},
         "has the shape (2, 5)"),
    ],
    "02.4": [
        ("gradients alone", {".eval()": ""}, "have moved the buffer 1.running_mean"),
        ("the mode alone", {"    network.requires_grad_(False)\n": ""},
         "eval() sets the mode"),
        ("an attribute", {"network.requires_grad_(False)": "network.requires_grad = False"},
         "hangs a new attribute"),
        ("a block without gradients", "import torch\n\n\ndef freeze(network):\n"
         "    with torch.no_grad():\n        return network.train()", "as long as its block"),
        ("convolutions alone", {"network.requires_grad_(False)":
                                "network[0].requires_grad_(False)"}, "6 of 8 parameters"),
        ("one layer's mode", {"return network.eval()": "network[1].eval()\n    return network"},
         "have moved the buffer 4.running_mean"),
        ("one kind's mode", {"return network.eval()":
                             "for module in network.modules():\n"
                             "        if isinstance(module, nn.BatchNorm2d):\n"
                             "            module.eval()\n    return network",
                             "def freeze": "from torch import nn\n\n\ndef freeze"},
         "have moved the buffer 5.running_mean"),
        ("reset", {"return network.eval()":
                   "for i in (1, 4, -1):\n        if hasattr(network[i], 'reset_running_stats'):\n"
                   "            network[i].reset_running_stats()\n    return network.eval()"},
         "itself changes 1.running_mean"),
        ("as new", {"return network.eval()":
                    "for module in network.modules():\n"
                    "        if hasattr(module, 'reset_parameters'):\n"
                    "            module.reset_parameters()\n    return network.eval()"},
         "itself changes 0.weight"),
        ("removed", "from torch import nn\n\n\ndef freeze(network):\n"
         "    network[1] = nn.Identity()\n    return network.requires_grad_(False).eval()",
         "takes no layer"),
        ("misspelt", "def freeze(network):\n    for parameter in network.parameters():\n"
         "        parameter.require_grad = False\n    return network.eval()", "`require_grad`"),
        ("nothing measured", {"return network.eval()":
                              "for i in (1, 4):\n        network[i].track_running_stats = False\n"
                              "        network[i].running_mean, network[i].running_var = None, None"
                              "\n    return network"}, "each batch by itself"),
        ("no return", {"return network.eval()": "network.eval()"}, "returns nothing"),
    ],
    "02.5": [
        ("as it was", {"(pixels / 255 - mean) / std": "(pixels - mean) / std / 255",
                       "grid.flatten(2).transpose(1, 2)":
                       "grid.reshape(len(grid), -1, grid.shape[1])"}, "both faults"),
        ("pixels only", {"grid.flatten(2).transpose(1, 2)":
                         "grid.reshape(len(grid), -1, grid.shape[1])"}, "channel by channel"),
        ("cells only", {"(pixels / 255 - mean) / std": "(pixels - mean) / std / 255"},
         "look at the pixels' scale"),
        ("not divided", {"pixels / 255": "pixels"}, "from 0 to 255 are not divided"),
        ("divided if it seems needed", {"pixels / 255 -":
                                        "pixels / (255 if pixels.max() > 1 else 1) -"},
         "from 0 to 1 are not divided"),
        ("not turned", {".transpose(1, 2)": ""}, "this is (B, D, P)"),
        ("not normalised", {"(pixels / 255 - mean) / std": "pixels / 255"},
         "no longer normalised"),
    ],
}  # fmt: skip

ALSO_RIGHT = {
    "02.2": [{"14 * 32": "420"}, {"14 * 32": "417"}],
    "02.5": [
        "def mended(network, pixels, mean, std):\n"
        "    images = (pixels - 255 * mean) / (255 * std)\n"
        "    with torch.no_grad():\n        grid = network(images)\n"
        "    return grid.permute(0, 2, 3, 1).flatten(1, 2)",
    ],
    "02.1": [
        "def receptive_field(layers):\n    width = 1\n"
        "    for kernel, stride in reversed(layers):\n"
        "        width = stride * (width - 1) + kernel\n    return width"
    ],
    "02.3": [
        """import numpy as np


def annotation_vectors(maps):
    maps = maps.numpy()
    return np.moveaxis(maps, 1, -1).reshape(len(maps), -1, maps.shape[1])
""",
        """def annotation_vectors(maps):
    rows = maps.tolist()
    return [[list(cell) for row in zip(*image) for cell in zip(*row)] for image in rows]
""",
        {
            "maps.flatten(2).transpose(1, 2)": "maps.permute(0, 2, 3, 1).reshape("
            "maps.shape[0], -1, maps.shape[1])"
        },
    ],
    "02.4": [
        "def freeze(network):\n    for parameter in network.parameters():\n"
        "        parameter.requires_grad = False\n    return network.train(False)",
        "def freeze(network):\n    network.requires_grad_(False)\n"
        "    for module in network.modules():\n        if list(module.buffers(recurse=False)):\n"
        "            module.eval()\n    return network",
        "def freeze(network):\n    network.requires_grad_(False).eval()\n"
        "    network.train = lambda mode=True: network\n    return network",
    ],
}
