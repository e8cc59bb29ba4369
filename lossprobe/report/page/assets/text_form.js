// The form of filters: its lists of choices, and what the reader asked for.

const RANKS = { first: [0, 0], few: [1, 9], tens: [10, 99], hundreds: [100, Infinity], wrong: [1, Infinity] };

function addOptions(select, options) {
  for (const [value, words] of options) {
    const option = document.createElement("option");
    option.value = value;
    option.textContent = words;
    select.append(option);
  }
}

// Fills the lists with the classes and roles that this text has.
function fillChoices(T, form) {
  const used = new Uint8Array(WORD_FORM + 1);
  for (let i = 0; i < T.count; i++) used[T.kind[i] & WORD_FORM] = 1;
  const forms = T.header.forms.map((words, form) => [`form ${form}`, words]).filter((_, form) => used[form]);
  addOptions(form.elements.class, [...forms, ["repeat 1", "id in the context"], ["repeat 0", "id not in the context"]]);
  if (form.elements.role) {
    const roles = [...new Set(T.header.labels.map(([role]) => role))];
    const parts = [...new Set(T.header.labels.map(([, part]) => part))];
    addOptions(form.elements.role, [
      ...roles.map((role) => [JSON.stringify(["role", role]), `role ${role ?? "(none)"}`]),
      ...parts.map((part) => [JSON.stringify(["part", part]), `part ${part.replaceAll("_", " ")}`]),
    ]);
  }
  const last = T.document_number.at(-1);
  if (last !== undefined) form.elements.document.max = last;
}

// Returns what the form asks for; null where it asks for nothing.
function wishesOf(form) {
  const { low, high, rank, document, search, role } = form.elements;
  const [kind, which] = form.elements.class.value.split(" ");
  const number = (field) => (field.value.trim() === "" || Number.isNaN(field.valueAsNumber) ? null : field.valueAsNumber);
  return {
    low: number(low),
    high: number(high),
    rank: RANKS[rank.value] ?? null,
    form: kind === "form" ? Number(which) : null,
    repeat: kind === "repeat" ? which === "1" : null,
    label: role && role.value ? JSON.parse(role.value) : null,
    document: number(document),
    search: search.value,
  };
}
