"""What readers get wrong in chapter 10, and what they should be told."""

PARTS = """
def step_in_parts(model, optimizer, batches):
    {0}
"""

MISTAKES = {
    "10.1": [
        ("no wait at the end", {"step()\n    wait()\n    return": "step()\n    return"},
         "before the device was done"),
        ("no wait at the start", {"    step()\n    wait()\n    start": "    step()\n    start"},
         "the rest of the one that warms up"),
        ("no wait at all", {"    wait()\n": ""}, "wait() is never called"),
        ("warm-up in the time", {"    step()\n    wait()\n    start": "    start",
                                 "range(3)": "range(4)", "3 *": "4 *"},
         "four steps were timed"),
        ("no warm-up", {"    step()\n    wait()\n    start": "    start"}, "called 3 times"),
        ("upside down", {"3 * batch_size / (clock() - start)":
                         "(clock() - start) / (3 * batch_size)"}, "these are seconds per image"),
        ("steps", {"3 * batch_size": "3"}, "these are steps per second"),
        ("one step's images", {"3 * batch_size": "batch_size"}, "the images of one were counted"),
        ("seconds", {"3 * batch_size / (clock() - start)": "clock() - start"},
         "these are seconds, not"),
        ("clock not called", {"clock() - start": "clock - start"}, "your code stops"),
        ("a wait after each", {"        step()\n    wait()": "        step()\n        wait()"},
         "idle while the next one was handed over"),
        ("warm-up in the time, not counted", {"    step()\n    wait()\n    start = clock()":
                                              "    start = clock()\n    step()\n    wait()"},
         "the step that warms up is in the time"),
        ("a single step", "def images_per_second(step, batch_size, wait, clock):\n"
         "    start = clock()\n    step()\n    wait()\n    return batch_size / (clock() - start)",
         "called once"),
        ("ten", {"range(3)": "range(10)"}, "11 times"),
    ],
    "10.2": [
        ("cleared in the loop", {"        loss =": "        optimizer.zero_grad()\n        loss ="},
         "throws the others away"),
        ("never cleared", {"    optimizer.zero_grad()\n": ""}, "gradients of an earlier step"),
        ("means added", {".sum() / rows": ".mean()"}, "you add up the parts' means"),
        ("mean of means", {".sum() / rows": ".mean() / len(batches)"}, "they differ in size"),
        ("a step each", {"    optimizer.step()": "        optimizer.step()"}, "made 3 steps"),
        ("no step", {"    optimizer.step()\n": ""}, "made 0 steps"),
        ("together", "import torch\n" + PARTS.format("""x = torch.cat([x for x, _ in batches])
    y = torch.cat([y for _, y in batches])
    optimizer.zero_grad()
    loss = (model(x) - y).square().mean()
    loss.backward()
    optimizer.step()
    return loss.item()"""), "went through the model together"),
        ("one backward", PARTS.format("""rows = sum(len(y) for _, y in batches)
    loss = sum((model(x) - y).square().sum() for x, y in batches) / rows
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()"""), "before any went backwards"),
        ("a sum", {".sum() / rows": ".sum()"}, "the gradient of the sum"),
        ("loss of the last", {"total += loss.item()": "total = loss.item()"},
         "that of the last part alone"),
        ("loss as a mean of means", {"total += loss.item()":
                                     "total += (model(x) - y).square().mean().item() / 3"},
         "went through the model"),
        ("cleared at the end", {"    optimizer.step()": "    optimizer.zero_grad()\n"
                                "    optimizer.step()"}, "the weights did not move"),
        ("eval", {"    optimizer.zero_grad()": "    model.eval()\n    optimizer.zero_grad()"},
         "leave the mode as it is"),
        ("nothing returned", {"    return total\n": ""}, "returns nothing"),
    ],
    "10.3": [
        ("plain mean", {"(losses[used] * tokens[used]).sum() / tokens.sum()":
                        "losses[used].mean()"}, "every batch counts alike; one"),
        ("empty as 0", {"losses[used] * tokens[used]).sum() / tokens.sum()":
                        "torch.nan_to_num(losses)).mean()"}, "even the empty one"),
        ("mean of means", {"(losses[used] * tokens[used]).sum() / tokens.sum()":
                           "losses.nanmean(dim=1).mean()"}, "every process counts alike"),
        ("each process weighted", "def nats_a_token(losses, tokens):\n"
         "    sums = (losses.nan_to_num() * tokens).sum(dim=1)\n"
         "    return (sums / tokens.sum(dim=1)).mean()", "each process is right by itself"),
        ("nan", {"used = tokens > 0": "used = tokens >= 0"}, "0 times nan is nan"),
        ("a sum", {" / tokens.sum()": ""}, "the sum of all nats"),
        ("by batches", {" / tokens.sum()": " / used.sum()"}, "by the number of batches"),
        ("one for each process", {".sum() / tokens.sum()": ".mean(dim=0, keepdim=True) * "
                                  "torch.ones(2)"}, "should be one number"),
    ],
    "10.4": [
        ("rounded down", {"math.ceil": "math.floor"}, "not yet enough: round up"),
        ("not rounded", {"math.ceil(ahead / gain)": "ahead / gain"}, "rows are whole"),
        ("one operation", {"2 * k * n": "k * n"}, "a multiplication and an addition"),
        ("weights only", {" - size * (k + n) / bandwidth": ""}, "the rows themselves are read"),
        ("not written", {"(k + n)": "k"}, "the result has to be written"),
        ("not read", {"(k + n)": "n"}, "the first factor has to be read"),
        ("numbers for bytes", {"size * ": ""}, "a number has `size` bytes"),
        ("never", {" if gain > 0 else math.inf": ""}, "return math.inf"),
        ("a division by zero", {"gain > 0": "gain >= 0"}, "divided by zero"),
        ("None", {"math.inf": "None"}, "where there is none, math.inf"),
        ("up to a thousand", "def rows_for_peak(k, n, size, peak, bandwidth):\n"
         "    for m in range(1, 1000):\n"
         "        if 2 * m * k * n * bandwidth >= peak * size * (m * k + k * n + m * n):\n"
         "            return m\n    return math.inf", "though it may take many"),
        ("a column of weights", {"ahead = size * k * n": "ahead = size * n"}, "is not right"),
    ],
    "10.5": [
        ("writing alone", {"load + encode + write": "write"}, "each image is loaded and encoded"),
        ("no loading", {"load + encode + write": "encode + write"}, "takes loading, too"),
        ("not rounded", {"math.floor(first_pass / saved) + 1": "first_pass / saved"},
         "count whole epochs"),
        ("rounded down", {"math.floor(first_pass / saved) + 1": "math.floor(first_pass / saved)"},
         "still behind"),
        ("encoding forgotten", {"load + encode + write": "load + write"}, "takes encoding, too"),
        ("level", {"math.floor(first_pass / saved) + 1": "math.ceil(first_pass / saved)"},
         "level after two"),
        ("decoding saved", {"saved = load": "saved = decode + load"}, "decoding costs the same"),
        ("grids for nothing", {" - load_grid": ""}, "still loads a grid"),
        ("None", {"math.inf": "None"}, "where there is none, math.inf"),
        ("a first epoch", {"first_pass = load + encode + write":
                           "first_pass = load + encode + write - load_grid"},
         "you let the first pass be the first epoch"),
        ("a pass that decodes", {"encode + write": "encode + write + decode"},
         "you let the first pass decode"),
        ("one too many", {") + 1": ") + 2"}, "one epoch too many"),
        ("up to a thousand", "def epochs_to_pay(load, encode, decode, write, load_grid):\n"
         "    for n in range(1, 1000):\n"
         "        taken = load + encode + write + n * (load_grid + decode)\n"
         "        if taken < n * (load + encode + decode):\n            return n\n"
         "    return math.inf", "though it may be late"),
        ("never", {" if saved > 0 else math.inf": ""}, "the cache never pays"),
    ],
}  # fmt: skip

ALSO_RIGHT = {
    "10.1": [
        """def images_per_second(step, batch_size, wait, clock):
    times = []
    for many in (1, 3):
        start = clock()
        for _ in range(many):
            step()
        wait()
        times.append(clock() - start)
    return batch_size / (times[1] / 3)
""",
        "def images_per_second(step, batch_size, wait, clock):\n    marks = []\n"
        "    for k in range(4):\n        if k == 1:\n            wait()\n"
        "            marks.append(clock())\n        step()\n    wait()\n"
        "    return 3 * batch_size / (clock() - marks[0])",
    ],
    "10.2": [
        PARTS.format("""model.zero_grad()
    rows, total = sum(len(x) for x, _ in batches), 0
    for x, y in batches:
        share = len(x) / rows
        loss = ((model(x) - y) ** 2).mean() * share
        loss.backward()
        total = total + loss.detach()
    optimizer.step()
    return total"""),
        "from torch.nn import functional as F\n"
        + PARTS.format("""rows = sum(len(x) for x, _ in batches)
    optimizer.zero_grad(set_to_none=False)
    losses = []
    for x, y in batches:
        loss = F.mse_loss(model(x), y, reduction="sum")
        (loss / rows).backward()
        losses.append(loss.item())
    optimizer.step()
    return sum(losses) / rows"""),
    ],
    "10.3": [
        """def nats_a_token(losses, tokens):
    nats = count = 0
    for means, numbers in zip(losses.tolist(), tokens.tolist()):
        for mean, n in zip(means, numbers):
            if n:
                nats, count = nats + mean * n, count + n
    return nats / count
""",
        """import numpy as np


def nats_a_token(losses, tokens):
    return np.nansum(losses.numpy() * tokens.numpy()) / tokens.numpy().sum()
""",
        "def nats_a_token(losses, tokens):\n    return ((losses.nan_to_num() * tokens).sum()"
        " / tokens.sum()).item()",
    ],
    "10.4": [
        """def rows_for_peak(k, n, size, peak, bandwidth):
    ridge = peak / bandwidth  # operations a byte
    if 2 * k * n <= ridge * size * (k + n):
        return float("inf")
    m = 1
    while 2 * m * k * n < ridge * size * (m * k + k * n + m * n):
        m += 1
    return m
""",
        "def rows_for_peak(k, n, size, peak, bandwidth):\n"
        "    slope = 2 * k * n * bandwidth - peak * size * (k + n)\n"
        "    return -(-peak * size * k * n // slope) if slope > 0 else math.inf",
    ],
    "10.5": [
        """import numpy as np


def epochs_to_pay(read, network, rest, store, fetch):
    won = read + network - fetch
    return np.inf if won <= 0 else 1 + (read + network + store) // won
""",
        "def epochs_to_pay(load, encode, decode, write, load_grid):\n"
        "    if load + encode <= load_grid:\n        return math.inf\n    epochs = 1\n"
        "    while load + encode + write + epochs * (load_grid + decode) >= epochs * (\n"
        "        load + encode + decode\n    ):\n        epochs += 1\n    return epochs",
    ],
}  # fmt: skip
