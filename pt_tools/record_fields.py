"""The fields of a record: name -> (type, who writes it, what it is)."""

FIELDS = {
    "id": ("string", "data, pt-curate", "names the record; a hash of its content where the data has none"),
    "source": ("string", "data, pt-curate", "the data set it comes from"),
    "domain": ("string", "data, pt-curate", "what it is about; evaluations report by domain"),
    "safety": ("boolean", "data, pt-curate", "whether it is about safety"),
    "weight": ("number", "data, pt-curate", "its weight in a loss, 1 if absent"),
    "prompt": ("list of messages, or string", "data, pt-curate", "what is to be answered; ends with user or tool"),
    "messages": ("list of messages", "data, pt-curate", "a whole conversation; ends with assistant. A message has "
                 "role (system, user, assistant, tool), content, and may have tool_calls, reasoning_content (its "
                 "thoughts), or \"train\": false (no loss on that turn)"),
    "text": ("string", "data, pt-curate", "plain text, all of it trained"),
    "completion": ("list of messages, or string", "data", "one answer to prompt (TRL)"),
    "label": ("boolean", "data", "whether completion is desirable (TRL, unpaired preference)"),
    "tools": ("list of objects", "data, pt-curate", "tools that the model may call"),
    "verifier": ("object, or list of objects", "data, pt-curate", "how completions are checked: name, what the verifier "
                 "needs, and key where a name occurs twice"),
    "reference": ("string", "data", "the right answer, for a judge"),
    "rubric": ("list of objects", "data", "criteria for a judge: criterion, and weight (1 if absent)"),
    "tokens": ("object", "pt-curate tag --tokenizer", "tokens of the prompt, and of all with the longest answer; of, a hash of "
               "what was counted and by which tokenizer and template"),
    "rules": ("object", "pt-curate filter --mark", "rules that hit the record, and what each found; of a completion in there"),
    "cluster": ("string", "pt-curate dedup --mark", "the id of the first row of those that are copies of each other"),
    "contamination": ("list of objects", "pt-curate decontaminate --mark", "evaluation items found in the prompt: eval, "
                      "id, coverage, span"),
    "prompt_ids": ("list of integers", "pt-sample", "token ids of prompt with the chat template"),
    "tokenizer": ("string", "pt-sample", "hash of the tokenizer that made the ids"),
    "template": ("string", "pt-sample", "hash of the chat template that made the ids"),
    "completions": ("list of objects", "pt-sample, pt-score", "text, token_ids, logprobs, finish (stop, length, stopped "
                    "or error), model, sampling by pt-sample; scores, details, errors, reward, teachers by pt-score; "
                    "rank; steps with a label each, in data for process rewards"),
    "chosen": ("list of messages, or string", "data, pt-curate pair", "the better completion"),
    "rejected": ("list of messages, or string", "data, pt-curate pair", "the worse completion"),
    "margin": ("number", "data, pt-curate pair", "reward of chosen less reward of rejected, or the margin of the rating"),
    "rating": ("string", "data, pt-curate pair", "how much better chosen is: significantly better, better, slightly better or "
               "negligibly better"),
    "chosen_ids": ("list of integers", "pt-curate pair", "token ids of chosen, with prompt_ids"),
    "rejected_ids": ("list of integers", "pt-curate pair", "token ids of rejected, with prompt_ids"),
    "reward": ("number", "pt-curate best", "reward of the completion taken into messages"),
    "pass_rate": ("number", "pt-curate best", "the share of its completions that passed"),
    "gatt": ("object", "pt-curate gatt", "the instruction of a dialogue, first (its form in training), and turns (user turns "
             "to come)"),
    "synth": ("object", "pt-curate synth", "what a request is made of: template, persona, seed"),
    "rank": ("integer", "pt-curate best", "its place among the completions of its prompt, 1 is best"),
}
