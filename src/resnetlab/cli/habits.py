"""Flags that people type from habit of torchvision, timm, Lightning or Hugging Face, and what to say here."""

from collections.abc import Collection, Sequence

from resnetlab.core.errors import ConfigError

_SIZE = "the images decide it; --image-size 224 resizes those of a folder, Parquet or the Hub"
_CLASSES = "the data decide it: one class for each folder or label"
_WEIGHTS = "--weights resnet50.tv2_in1k, which the Hub has, or --weights FILE"
_RANKS = "torchrun --nproc-per-node 2 -m resnetlab train … trains on several"
_FLAGS: dict[str, tuple[str, ...]] = {
    "--model MODEL": ("-a", "--arch", "--architecture", "--net", "--model-name", "--model-name-or-path"),
    "--lr RATE": ("--learning-rate", "--base-lr", "--max-lr", "--lr-max", "--init-lr"),
    "--batch-size N": ("-b", "--batch", "--bs", "--per-device-train-batch-size", "--train-batch-size"),
    "--epochs N": ("--epoch", "--num-epochs", "--max-epochs", "--num-train-epochs", "--n-epochs"),
    "--data FOLDER": ("--data-dir", "--data-path", "--dataset", "--dataset-name", "--train-dir", "--root"),
    "--out FOLDER": ("-o", "--output", "--output-dir", "--save-dir", "--checkpoint-dir", "--log-dir"),
    "--workers N": ("-j", "--num-workers", "--dataloader-num-workers"),
    "--weight-decay X": ("--wd",),
    "--optimizer sgd": ("--opt", "--optim"),
    "--schedule cosine": ("--sched", "--lr-scheduler", "--scheduler", "--lr-scheduler-type"),
    "--label-smoothing X": ("--smoothing",),
    "--clip-norm X": ("--clip-grad", "--clip-grad-norm", "--gradient-clip-val", "--max-grad-norm"),
    "--precision bf16": ("--amp", "--fp16", "--bf16", "--half", "--use-amp"),
    "--device cuda": ("--gpu", "--cuda", "--accelerator"),
    "--ema X": ("--model-ema", "--model-ema-decay"),
    "--accumulate N": ("--grad-accum-steps", "--accumulate-grad-batches", "--gradient-accumulation-steps"),
    "--checkpoint-blocks auto": ("--grad-checkpointing", "--gradient-checkpointing"),
    "--compile": ("--torchcompile", "--torch-compile"),
    "--options stochastic_depth 0.1": ("--drop-path", "--drop-path-rate"),
    "--options head_dropout 0.1": ("--drop", "--drop-rate"),
    "--policy rand or --policy trivial": ("--aa", "--auto-augment"),
    "--resume RUN": ("--resume-from-checkpoint", "--ckpt-path"),
    "resnetlab evaluate RUN": ("-e", "--evaluate", "--test-only"),
    _WEIGHTS: ("--pretrained", "--initial-checkpoint", "--checkpoint", "--ckpt", "--pretrained-path"),
    _SIZE: ("--img-size", "--imgsz", "--input-size", "--crop-size", "--size", "--resolution"),
    _CLASSES: ("--num-classes", "--nb-classes", "--num-labels", "--n-classes"),
    _RANKS: ("--gpus", "--devices", "--world-size", "--local-rank", "--num-gpus"),
}
HABITS = {habit: answer for answer, habits in _FLAGS.items() for habit in habits}


def answer_habits(words: Sequence[str], flags: Collection[str], prog: str) -> None:
    """Raise ``ConfigError`` for the first word that is another project's flag and none of ``flags``, with ours."""
    for word in words:
        flag = word.partition("=")[0].replace("_", "-")
        if flag in HABITS and flag not in flags:
            raise ConfigError(f"{word} is no flag of {prog}; say: {HABITS[flag]}")
