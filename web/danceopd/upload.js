// A button on Prompt Bucket that takes a table from the person's disk into ComfyUI's input folder. No page and no server.

const TABLES = ".csv,.jsonl";

// `pick(accept)`: a promise of the file that a person chooses, or null; `upload(file)`: of its name in the input folder;
// `chosen(name)`: what follows.
export function offerUpload(node, label, { pick, upload, chosen }) {
  const content = node.widgets?.find(({ name }) => name === "content");
  if (!content) return;
  const press = async () => {
    const file = await pick(TABLES);
    if (file) chosen(await upload(file));
  };
  const button = node.addWidget("button", "upload", null, press, { serialize: false });
  button.label = label;
  button.serialize = false; // the option excludes it from the prompt, this property from the saved workflow
  const show = () => {
    button.hidden = content.value !== "CSV file";
    button.options.hidden = button.hidden;
  };
  const before = content.callback;
  content.callback = function (...given) {
    const result = before?.apply(this, given);
    show();
    return result;
  };
  show();
  return show; // once a saved workflow has set the content
}
