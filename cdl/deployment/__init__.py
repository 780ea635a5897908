"""Load, export, measure, run and continue to train finished students.

- Use: `student` (the interface, and exported students), `trained` (the student of a run, in
  torch), `load` (either of them), `predict` (files on the command line), `demo` (the page
  that runs an exported student in a browser).
- Export: `graph` (ONNX, ExecuTorch, int8), `export` (the exported folder), `parity` (comparison
  with torch and the evaluation), `costs` (parameters and operations), `card` (the model card),
  `measure` (timings).
- Further training: `learn` (one more task), `new_classes` (the user's items for it, with
  `new_images` and `new_texts`), `teacher_of_run` (checks of the teacher for it).
- Sharing: `hub` (upload to the Hugging Face Hub, fetch from it).

Nothing is imported here, so that an exported student runs without torch.
"""
