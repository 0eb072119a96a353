"""Mixed precision: what runs in 16 bits, and the loss scale that fp16 needs."""

import torch

from resnetlab.train.config import Precision

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """The context in which convolutions and matrices run in ``precision``; with fp32 it changes nothing."""
    return torch.autocast(device.type, dtype=DTYPES[precision], enabled=precision != "fp32")


def make_scaler(precision: Precision, device: torch.device) -> torch.amp.GradScaler:
    """The scaler of the loss: fp16 holds no gradient below 6e-8. It does nothing for the other precisions."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")
