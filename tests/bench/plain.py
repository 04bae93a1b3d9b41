"""A training script as one writes it for Hydra's own launchers: a job trains one run in the process it gets.

`python -m tests.bench.plain -m hydra/launcher=basic OVERRIDES` trains what `harness sweep OVERRIDES` trains:
the same models, step, batches, evaluations and last checkpoint, under XLA's default flags.
"""

import csv
from pathlib import Path

import hydra
from omegaconf import DictConfig

from harness.config.compose import CONF_FOLDER, register_schema, to_resolved_config
from harness.training.step_inputs import StepInputs

register_schema()


@hydra.main(version_base="1.3", config_path=str(CONF_FOLDER), config_name="config")
def train(node: DictConfig) -> None:
    register_schema()  # joblib's processes have not run this file
    import jax
    import jax.numpy as jnp
    import orbax.checkpoint as ocp

    from harness.data import TextCorpus, open_data
    from harness.models import build
    from harness.training.schedule import learning_rate, main_segment
    from harness.training.step import TrainState, make_step
    from harness.training.trainable.trainable_model import make_trainable

    config = to_resolved_config(node)
    folder = Path(config.runs) / config.scale.name / config.variant.name / f"seed{config.seed}"
    folder.mkdir(parents=True)
    corpus = open_data(config.data)
    assert isinstance(corpus, TextCorpus)
    sampler = corpus.sampler(config.scale.batch, config.data_seed)
    heldout = corpus.heldout(config.evaluation.tokens)
    learner = make_trainable(config, build(config, corpus.codec.vocabulary, corpus.codec.end_token))
    optimizer = learner.build_optimizer(config.optimizer)
    step = jax.jit(make_step(learner, config.optimizer, optimizer), donate_argnums=0)
    loss = jax.jit(lambda params, rows: learner.loss(params, rows, 0.0)[1]["loss"])
    course = main_segment(config)
    assert config.evaluation.points is not None
    at = {round(course.last * i / config.evaluation.points) for i in range(1, config.evaluation.points + 1)}
    params = {path: jnp.asarray(value) for path, value in learner.model.init(config.seed).items()}
    state, rows = TrainState(params, optimizer.init(params)), []
    for t in range(course.last):
        rate = config.optimizer.learning_rate * learning_rate(config.schedule, course, t)
        state, metrics = step(state, jnp.asarray(sampler.batch(t).tokens_BT)[None], StepInputs(rate))
        rows.append([t + 1, *map(float, metrics)])
        if t + 1 in at:
            for name, domain in heldout.items():
                pieces = [
                    domain.tokens_NT[i : i + config.scale.batch]
                    for i in range(0, len(domain.tokens_NT), config.scale.batch)
                ]
                rows.append([t + 1, name, sum(float(loss(state.params, piece)) for piece in pieces)])
    with (folder / "curve.csv").open("w") as file:
        csv.writer(file).writerows(rows)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save((folder / "checkpoint").absolute(), state)


if __name__ == "__main__":
    train()
