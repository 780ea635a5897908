"""Load, export, measure, run and continue to train finished students.

- Use: `facade` (what `cdl.load` returns; `pictures` are the images that it takes), `student`
  (exported students), `trained` (the student of a run, in torch; `text` for texts), `load` (any of
  them), `predict` (files on the command line), `demo` (the page that runs an exported student).
- Export: `graph` (ONNX, ExecuTorch, int8), `export` (the exported folder), `manifest` (its files
  with their hashes), `merged` (plain weights for timm), `parity` (comparison with torch and the
  evaluation), `costs` (parameters and operations), `card` (the model card), `measure` (timings).
- Learning where the student is, without torch: `device` (the program `student.py`), `remember`
  (its memory).
- Further training: `learn` (one more task, trained by `one_more_task`), `new_classes` (the user's
  items for it, with `new_images` and `new_texts`), `teacher_of_run` (checks of the teacher for it).
- Sharing: `hub` (upload to the Hugging Face Hub, fetch from it).

Nothing is imported here, so that an exported student runs without torch.
"""
