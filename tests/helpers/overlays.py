"""Shipped overlays, and the configurations that they are laid over."""

OVERLAYS = {  # a file or folder of overlays, and what they are laid over, one by one
    "ablations": ["digits.yaml", "paper/cifar100.yaml"],
    "test": ["digits.yaml"],
    "fair_schedule_others.yaml": ["studies/fair_schedule.yaml"],
    "teacher_free.yaml": ["studies/fair_schedule.yaml"],
    "statistics_others.yaml": ["studies/statistics.yaml"],
    "inside_rates.yaml": ["studies/inside.yaml"],
    "seen_classes_tuned.yaml": ["studies/seen_classes.yaml"],
    "clinc150_l6.yaml": ["text/clinc150.yaml"],
    "clinc150_all.yaml": ["text/clinc150.yaml"],
    "clinc150_epochs.yaml": ["text/clinc150.yaml"],
    "pilot_sgd.yaml": ["paper/pilot_cifar100.yaml"],
}
