"""Mixed precision: what runs in 16 bits, and the loss scale that fp16 needs."""

from contextlib import AbstractContextManager, nullcontext

import torch

from resnetlab.train.config import Precision

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """The context in which convolutions and matrices run in ``precision``; with fp32 there is none."""
    return nullcontext() if precision == "fp32" else torch.autocast(device.type, dtype=DTYPES[precision])


def make_scaler(precision: Precision, device: torch.device) -> torch.amp.GradScaler:
    """The scaler of the loss: fp16 holds no gradient below 6e-8. It does nothing for the other precisions."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")
