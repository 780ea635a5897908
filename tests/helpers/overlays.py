"""Shipped overlays, and the configurations that they are laid over."""

OVERLAYS = {  # a file or folder of overlays, and what they are laid over, one by one
    "larger_pairs.yaml": ["proxy/cifar100.yaml"],
    "ablations": ["digits.yaml", "paper/cifar100.yaml"],
    "test": ["digits.yaml"],
    **{
        f"{study}_{part}.yaml": [f"studies/{study}.yaml"]
        for study, parts in [
            ("fair_schedule", ("1", "1_rates", "5", "core", "cifar100", "cifar100_5")),
            ("fair_schedule", ("others", "others_5", "others_20")),
            ("soft_columns", ("core",)),
            ("statistics", ("others", "same")),
            ("inside", ("cifar100", "rates", "released")),
        ]
        for part in parts
    },
    "teacher_free.yaml": ["studies/fair_schedule.yaml"],
    "own_answers.yaml": ["studies/statistics.yaml"],
    "own_answers_others.yaml": ["studies/statistics.yaml"],
    "mapped_prompts.yaml": ["cifar100_methods.yaml"],
    "clinc150_l6.yaml": ["text/clinc150.yaml"],
    "clinc150_all.yaml": ["text/clinc150.yaml"],
    "clinc150_epochs.yaml": ["text/clinc150.yaml"],
    "pilot_sgd.yaml": ["paper/pilot_cifar100.yaml"],
}
