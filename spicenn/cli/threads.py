"""How many threads torch uses in a command."""


def one_thread() -> None:
    """Let torch use one thread in this process.

    A surrogate's matrices are small: on a busy machine several threads mostly wait
    for each other (measured: a fit of seconds became one of minutes).
    """
    import torch

    torch.set_num_threads(1)
