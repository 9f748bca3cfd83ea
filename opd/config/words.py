"""What other trainers call the settings: whoever comes from them is told the name that they have here.

Names as in TRL, verl, the Tinker cookbook, prime-rl, NeMo-RL, axolotl and torchtune.
"""

from __future__ import annotations

SAMPLES = (
    "data.prompts_per_step, prompts of a whole optimizer step, each answered sampling.n times: a batch of rows is the "
    "product of both"
)
MICRO = "optim.micro_tokens, in tokens, which changes no gradient: data.prompts_per_step is of a whole optimizer step"
LMBDA = "source=mixed 'source.shares={student: 0.5, dataset: 0.5}', of which the student's is lambda"
SEQ_KD = "source=teacher, or one among the source.parts of source=mixed (see From TRL in the page of methods)"
STEPS = "steps, each of data.prompts_per_step prompts"
LENGTHS = "sampling.max_tokens and data.max_prompt_tokens, which are bounded each"
STUDENT, TEACHER, DATA = (
    "student.model",
    "teacher.model",
    "data, which is a file of rows, a task of your own or a name in conf/data",
)
RANKS = "devices=ranks devices.ranks"
ELSEWHERE: dict[str, tuple[str, ...]] = {
    "optim.lr": ("learning_rate", "learner_lr", "actor_lr"),
    "optim.schedule": ("lr_scheduler_type", "lr_scheduler", "lr_schedule", "scheduler"),
    "optim.warmup_steps": ("warmup", "warmup_ratio", "num_warmup_steps", "lr_warmup_steps"),
    "optim.weight_decay": ("decay", "wd"),
    "optim.betas": ("adam_beta1", "adam_beta2", "beta1", "beta2"),
    "optim.max_grad_norm": ("clip_grad", "grad_clip", "gradient_clipping", "max_norm"),
    "optim.steps_per_batch": ("num_iterations", "ppo_epochs", "num_substeps", "num_batches_per_step"),
    SAMPLES: (
        "batch_size", "train_batch_size", "per_device_train_batch_size", "global_batch_size", "groups_per_batch",
        "generation_batch_size", "rollout_batch_size", "num_prompts_per_step", "gen_batch_size",
    ),
    MICRO: (
        "gradient_accumulation_steps", "micro_batch_size", "train_micro_batch_size", "ppo_micro_batch_size",
        "ppo_micro_batch_size_per_gpu", "mini_batch_size",
    ),
    "sampling.n": (
        "num_generations", "group_size", "num_return_sequences", "rollouts_per_example", "num_generations_per_prompt",
        "num_samples",
    ),
    "sampling.max_tokens": (
        "max_completion_length", "max_new_tokens", "max_response_length", "response_length", "completion_length",
        "max_completion_tokens", "generation_max_length",
    ),
    "data.max_prompt_tokens": ("max_prompt_length", "prompt_length"),
    "sampling.repetition.longest": ("repetition_detection", "max_pattern_size"),
    "sampling.horizon.first": ("rollout_horizon", "prefix_length"),
    LENGTHS: (
        "max_length", "max_seq_length", "max_seq_len", "seq_len", "sequence_length", "sequence_len", "max_model_len",
        "context_length",
    ),
    STEPS: (
        "max_steps", "num_steps", "total_steps", "train_steps", "total_training_steps", "n_steps", "epochs",
        "num_train_epochs", "num_epochs", "total_epochs",
    ),
    "objective.beta with objective=gkd, objective.coef with others": ("beta", "kl_coef", "kl_penalty_coef", "kl_beta"),
    "objective.discount": ("kl_discount_factor",),
    SEQ_KD: ("seq_kd",),
    LMBDA: ("lmbda", "lambda", "on_policy_fraction"),
    "student=lora student.lora.rank": ("r", "lora_r", "lora_rank", "use_lora", "use_peft", "peft_config", "adapter"),
    "student=lora student.lora.alpha": ("lora_alpha",),
    "student=lora student.lora.dropout": ("lora_dropout",),
    "student=lora student.lora.targets": ("lora_target_modules", "target_modules", "lora_modules"),
    "student.model or teacher.model": ("model", "model_name", "model_name_or_path", "model_path"),
    STUDENT: ("student_model", "base_model", "actor_model", "policy_model"),
    TEACHER: ("teacher_model", "teacher_model_name_or_path", "teacher_path", "teacher_name"),
    "reference": ("ref_model", "reference_model"),
    DATA: (
        "dataset", "dataset_name", "datasets", "dataset_path", "train_file", "train_files", "prompts", "env",
        "task",
    ),
    "data.tasks, whose verify() gives the reward": (
        "reward", "reward_fn", "reward_func", "reward_funcs", "reward_function", "reward_model", "verifier",
    ),
    "run=DIR": ("output_dir", "log_path", "save_path", "ckpt_dir", "run_dir"),
    "name": ("run_name", "experiment_name"),
    "checkpoint.every": ("save_steps", "save_every", "save_freq", "ckpt_every", "save_interval"),
    "checkpoint.keep": ("save_total_limit", "keep_last", "max_ckpt_to_keep"),
    "eval.every": ("eval_steps", "eval_every", "test_freq", "eval_interval"),
    "log.rollouts_every; figures are written of every step": ("logging_steps",),
    "log=wandb, log=tensorboard or log=trackio": ("report_to", "wandb_project", "wandb", "logger"),
    "student.dtype, teacher.dtype and rollout.dtype": ("bf16", "fp16", "torch_dtype", "precision"),
    "student.attention": ("attn_implementation", "flash_attention", "attn"),
    "teacher.quantization, int8 or int4; a student's weights are not packed while they are trained": (
        "load_in_8bit", "load_in_4bit", "bnb_4bit_quant_type", "quantization", "quantization_config",
    ),
    "stop.patience with stop.metric": ("early_stopping_patience", "early_stopping", "patience"),
    "checkpoint.best": ("load_best_model_at_end", "metric_for_best_model", "save_best"),
    "rollout.gpu_memory_utilization": ("vllm_gpu_memory_utilization",),
    "rollout=vllm or rollout=hf": ("use_vllm", "vllm_mode", "engine", "backend", "inference_engine"),
    RANKS: ("num_gpus", "n_gpus", "n_gpus_per_node", "nproc_per_node", "num_processes", "world_size"),
    "devices=apart devices.ahead": ("async_level", "max_off_policy_steps", "max_async_level", "off_by_n"),
    "devices=apart devices.tensor_parallel": (
        "tensor_parallel_size", "vllm_tensor_parallel_size", "tensor_model_parallel_size", "tp_size", "tp",
    ),
}  # fmt: skip
"""Settings, with what else they are called."""


def here(word: str) -> str:
    """What a setting of another trainer's is here; empty: nobody's."""
    flat = word.lower().replace("-", "_")
    return next((setting for setting, words in ELSEWHERE.items() if flat in words), "")
