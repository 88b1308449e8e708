"""The introduction of docs/recipe.md; `reference` adds the tables of all settings."""

EXAMPLE = """\
model: /models/Z-Image                  # a diffusers folder, a Hugging Face id, or `shapes`
teachers:
  base: {guidance: 4.0}                 # the base model with its guidance, which the student absorbs
  edit: {lora: edit.safetensors}
routes:
  - name: text-to-image
    teacher: base
    bucket: {csv: prompts.csv}          # prompts without source images
    weight: 2.0
  - name: edits
    teacher: edit
    bucket: {csv: edits.csv, task: local_edit}
student: {rank: 64}
optimizer: {lr: 1e-4, schedule: cosine, warmup: 100}
method: danceopd
sigmas: {shift: 3.0}
steps: 2000
out: runs/zimage-edit
"""

INTRODUCTION = """\
# Recipes

A recipe is one YAML file that describes a training run. `danceopd train RECIPE` runs it, the option `--dry-run`
reports every fault in it without opening a model, and `danceopd recipes` lists recipes to fill in. In ComfyUI the
nodes set the same settings; the last column of the tables names the node and its input.

This page is the output of `danceopd recipes --reference`.

```yaml
{example}
```

**Values.** Settings that are left out have their default. A value is read as the type that its setting has: `no` is
text in a prompt and false in a switch, and `1e-4` is a number. Where the type says "or null", `null` and nothing mean
"not set". Unknown and duplicate keys are faults.

**Paths.** A relative path is relative to the recipe's folder if it exists there, else to the current folder. `out` is
relative to the current folder. `shapes` and names that begin with `shapes:` are parts of the embedded model.

**Overrides.** Values can be changed on the command line, one `key.path=value` each:

    danceopd train RECIPE optimizer.lr=1e-4 routes[0].weight=3 "student={{rank: 8, targets: [to_q]}}"

List entries are counted from 0; a whole list or mapping is given as `[...]` or `{{...}}`.

**Renamed keys.** Recipes and overrides with the old key are still read; recipes are written with the new one.

{renamed}
"""
