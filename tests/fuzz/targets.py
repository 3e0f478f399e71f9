"""What is fuzzed. A target takes bytes and gives what it was told: a refusal's text, or None where
the input was taken. Anything else that comes out, an exception of another kind, is a finding."""

from __future__ import annotations

from tests.fuzz import arrays, checkpoints, configs, databases, programs
from tests.fuzz.inputs import Target

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("program text", programs.texts, programs.program_text),
        Target("program file", programs.files, programs.program_file),
        Target(
            "constant", lambda: [b"rsqrt(d1)*d0/3.5", b"1e3*d2", b"sqrt(d0)"], programs.constant
        ),
        Target("config", configs.campaigns, configs.config),
        Target("study config", configs.studies, configs.study_config),
        Target("weights", arrays.weight_files, arrays.weights),
        Target("tokens", arrays.token_files, arrays.tokens),
        Target("similar text", arrays.similar_files, arrays.similar),
        Target("pruning file", arrays.pruning_files, arrays.pruning),
        Target("checkpoint", checkpoints.checkpoint_files, checkpoints.checkpoint),
        Target("database row", databases.row_values, databases.database_row, slow=True),
        Target("database file", databases.row_values, databases.database_file, slow=True),
        Target("earlier database", databases.row_values, databases.earlier_database, slow=True),
        Target("export", programs.words, programs.exported, slow=True),
    )
}
