"""The DeepSpeed engine of a run, and its state in one piece, however ZeRO scattered it over the processes.

A state in one piece fits every number of processes and every ZeRO stage: DeepSpeed's own checkpoints of stages 1 to 3
can only be loaded by as many processes as wrote them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from mammoclip.config import PretrainSection
from mammoclip.errors import ConfigError
from mammoclip.models import MammoClip

_MOMENTS = ("exp_avg", "exp_avg_sq")
_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
_PRECISION_KEYS = ("bf16", "fp16", "torch_autocast")


def build_engine(
    model: MammoClip, section: PretrainSection, deepspeed_config: dict[str, Any], micro_batch_size: int, num_parts: int
) -> Any:
    """Return a DeepSpeed engine that trains ``model`` with AdamW; a group's ``peak`` is its peak learning rate.

    Lower precision is torch's autocast: weights, their updates, batch-norm statistics and the loss stay fp32.

    Raises:
        ConfigError: if the DeepSpeed configuration speaks of precision, or asks for what this machine cannot do.
    """
    import deepspeed  # noqa: PLC0415  (seconds to import, and only training needs it)

    cuda = torch.cuda.is_available()
    if misplaced := [key for key in _PRECISION_KEYS if key in deepspeed_config]:
        raise ConfigError(f"pretrain.deepspeed: {misplaced[0]} belongs to pretrain.precision; remove it from the file")
    if section.sync_batch_norm:
        if not cuda:
            raise ConfigError("pretrain.sync_batch_norm needs GPUs (torch has it for CUDA alone); switch it off")
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    heads = [*model.image_projection.parameters(), *model.text_projection.parameters(), *model.logit_parameters()]
    known = {id(parameter) for parameter in heads}
    encoders = [p for p in model.parameters() if p.requires_grad and id(p) not in known]
    groups = [
        {"params": encoders, "peak": section.learning_rate},
        {"params": heads, "peak": section.projection_learning_rate or section.learning_rate},
    ]
    optimizer = torch.optim.AdamW(groups, lr=section.learning_rate, weight_decay=section.weight_decay, fused=cuda)
    precision = _precision(section.precision, cuda)
    if precision == "fp16" and deepspeed_config.get("zero_optimization", {}).get("stage", 0):
        raise ConfigError(
            "pretrain.precision: fp16 works with ZeRO stage 0 alone (with others DeepSpeed never lowers the loss scale "
            "and training stands still); take bf16, or workflow/deepspeed/zero0.json"
        )
    config = {
        **deepspeed_config,
        "train_micro_batch_size_per_gpu": micro_batch_size,
        "gradient_accumulation_steps": num_parts,
        "torch_autocast": {"enabled": precision != "fp32", "dtype": _DTYPES[precision]},
    }
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
    return engine


def _precision(wanted: str, cuda: bool) -> str:
    if wanted == "auto":
        return ("bf16" if torch.cuda.is_bf16_supported() else "fp16") if cuda else "fp32"
    return wanted


def whole_weights(engine: Any) -> dict[str, Tensor]:
    """Return the state dict of the model, on the CPU; every process must call it, and all get the whole."""
    import deepspeed  # noqa: PLC0415

    scattered = [p for p in engine.module.parameters() if hasattr(p, "ds_id")]
    with deepspeed.zero.GatheredParameters(scattered):
        return {name: value.detach().cpu().contiguous().clone() for name, value in engine.module.state_dict().items()}


def whole_optimizer_state(engine: Any) -> dict[str, Any]:
    """Return the steps made, AdamW's moments of every trained parameter by name, and the state of a loss scaler.

    Every process must call it, and all get the whole.
    """
    from deepspeed.utils import safe_get_full_optimizer_state  # noqa: PLC0415

    optimizer = _base_optimizer(engine)
    scaler = _loss_scaler(engine)
    steps = [int(state["step"]) for state in optimizer.state.values() if state]
    moments: dict[str, dict[str, Tensor]] = {}
    state = {
        "step": max(steps, default=0),
        "moments": moments,
        "scaler": None if scaler is None else scaler.state_dict(),
    }
    if not steps:  # none was made: every one so far overflowed in fp16
        return state
    _link_moments(engine)
    for name, parameter in _trained(engine):
        if engine.zero_optimization_stage():
            moments[name] = {key: safe_get_full_optimizer_state(parameter, key).cpu() for key in _MOMENTS}
        elif parameter in optimizer.state:  # one that no gradient ever reached has none
            moments[name] = {key: optimizer.state[parameter][key].cpu().clone() for key in _MOMENTS}
    return state


def load_optimizer_state(engine: Any, state: dict[str, Any]) -> None:
    """Give ``engine``, whose model has its weights already, what ``whole_optimizer_state`` returned."""
    if (scaler := _loss_scaler(engine)) and state["scaler"]:
        scaler.load_state_dict(state["scaler"])
    if not state["moments"]:
        return
    optimizer = _base_optimizer(engine)
    for tensor in _optimized_tensors(engine, state["moments"]):
        step = torch.tensor(float(state["step"]), device=tensor.device if torch.cuda.is_available() else "cpu")
        optimizer.state[tensor] = {"step": step, **{key: torch.zeros_like(tensor) for key in _MOMENTS}}
    _link_moments(engine)
    for name, parameter in _trained(engine):
        for key, value in state["moments"].get(name, {}).items():
            _set_moment(engine, parameter, key, value.to(engine.device))


def _link_moments(engine: Any) -> None:
    """Tell the parameters of ZeRO 1 and 2 where their moments are: DeepSpeed forgets all groups but the first."""
    if engine.zero_optimization_stage() in (1, 2):
        engine.optimizer._hp_optimizer_states_linked = False
        engine.optimizer._lazy_init_hp_params_optimizer_state()


def _set_moment(engine: Any, parameter: Any, key: str, value: Tensor) -> None:
    from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state  # noqa: PLC0415

    stage = engine.zero_optimization_stage()
    if stage == 0:
        engine.optimizer.state[parameter][key].copy_(value)
    elif stage < 3:
        safe_set_full_optimizer_state(parameter, value, key)
    else:  # DeepSpeed's own way to set the whole fails where the processes do not divide it
        own = parameter.ds_tensor.numel()
        padded = pad(value.flatten(), (0, own * engine.dp_world_size - value.numel()))
        safe_set_local_optimizer_state(parameter, padded.narrow(0, own * engine.global_rank, own), key)


def _trained(engine: Any) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, p) for name, p in engine.module.named_parameters() if p.requires_grad)


def _base_optimizer(engine: Any) -> torch.optim.AdamW:
    """Return torch's optimiser, which DeepSpeed wraps for ZeRO."""
    optimizer: torch.optim.AdamW = engine.optimizer.optimizer if engine.zero_optimization_stage() else engine.optimizer
    return optimizer


def _optimized_tensors(engine: Any, moments: dict[str, Any]) -> list[Tensor]:
    """Return what the optimiser keeps moments of: parameters, or under ZeRO this process's part of all of them."""
    stage = engine.zero_optimization_stage()
    if stage == 0:
        return [p for name, p in _trained(engine) if name in moments]
    tensors: list[Tensor] = (
        engine.optimizer.fp32_partitioned_groups_flat
        if stage == 3
        else engine.optimizer.single_partition_of_fp32_groups
    )
    return tensors


def _loss_scaler(engine: Any) -> Any:
    """Return what keeps fp16 gradients from underflow, or None."""
    return (
        engine.optimizer.torch_autocast_gradscaler
        if engine.zero_optimization_stage()
        else (engine.torch_autocast_z0_gradscaler)
    )
