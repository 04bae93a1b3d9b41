"""Run directories as the launcher leaves them for a worker."""

from __future__ import annotations

from pathlib import Path

from harness.config.schema.run import Config
from harness.core.hashing import hash_json
from harness.records.paths import RunDir, SweepDir
from harness.records.run.config_file import write_config
from harness.records.run.provenance import (
    Provenance,
    code_hash_of,
    identity_of,
    package_versions,
    write_provenance,
)
from harness.worker.describe import describe


def prepare_run(folder: Path, config: Config) -> RunDir:
    """`<folder>/<scale>/<variant>/seed<k>` with config.yaml and run.json."""
    facts = describe(config)
    run = SweepDir(folder).run(config.scale.name, config.variant.name, config.seed)
    run.path.mkdir(parents=True, exist_ok=True)
    write_config(run.config, config)
    record = Provenance(
        identity=identity_of(config, facts),
        config_hash=hash_json(config),
        code_hash=code_hash_of(config),
        experiment="test",
        scale=config.scale.name,
        variant=config.variant.name,
        seed=config.seed,
        data_seed=config.data_seed,
        parameters=facts.parameters,
        tokens=config.scale.tokens,
        facts=facts,
        versions=package_versions(),
    )
    write_provenance(run, record)
    return run
