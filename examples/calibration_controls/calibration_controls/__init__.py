"""Controls of knowledge distillation over all classes seen."""
