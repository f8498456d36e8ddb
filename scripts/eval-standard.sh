#!/usr/bin/env bash
# The public benchmarks of the papers: hands a model directory to EleutherAI's lm-evaluation-harness.
#
#   scripts/eval-standard.sh [OPTION…] MODEL_DIR [TASKS] OUT [-- ARGUMENT…]
#
# TASKS     a recipe (instructgpt llama2 tulu3 r1 deepseek; tulu3 if none is given) or the harness's own names a,b,c
# OUT       a directory that does not exist yet: the harness's results, and protocol.json, which says how they were made
# ARGUMENT  goes to the harness as it is (--limit 100, --include_path DIR, --gen_kwargs temperature=0.6,do_sample=True)
#
#   --dry-run             print the harness's command line as the shell would read it, and stop
#   --seed N              of everything random (0)
#   --batch-size N        rows at once, or auto (auto)
#   --no-chat-template    prompts as plain text; otherwise the model's template is used where it has one
#   --unsafe-local        let the harness run model-written Python here, WITHOUT a sandbox; without it the code
#                         benchmarks of a recipe are left out. `pt-eval -m` runs HumanEval and MBPP in one.
#
# The harness wants a virtual environment of its own: python -m venv lm && lm/bin/pip install 'lm_eval[hf,math,ifeval]'
# and lm/bin on PATH, or LM_EVAL=lm/bin/lm_eval. Its data sets come from the Hugging Face hub. Names and shot counts are
# those of version 0.4.13: gsm8k_cot 8 shots, minerva_math 4, bbh_cot_fewshot 3, the others as their task says. The
# harness has no PopQA, AlpacaEval, Arena-Hard, LiveCodeBench, Codeforces, SWE-bench or safety suites of the papers.
set -euo pipefail

die() { echo "eval-standard: $2" >&2; exit "$1"; }

tasks_of() {
  case $1 in
    instructgpt) echo truthfulqa_gen,toxigen,crows_pairs_english,hellaswag,drop,squadv2 ;;
    llama2) echo mmlu,bbh_cot_fewshot,agieval_en,gsm8k_cot,minerva_math,triviaqa,nq_open,boolq,piqa,social_iqa,hellaswag,winogrande,arc_easy,arc_challenge,openbookqa,commonsense_qa,squadv2,truthfulqa_gen,toxigen ;;
    tulu3) echo mmlu_flan_cot_zeroshot,truthfulqa_mc2,bbh_cot_fewshot,drop,minerva_math,gsm8k_cot,ifeval ;;
    r1) echo aime24,minerva_math500,gpqa_diamond_cot_zeroshot,mmlu,mmlu_pro,ifeval,drop ;;
    deepseek) echo aime24,aime25,minerva_math500,gpqa_diamond_cot_zeroshot,mmlu,mmlu_pro,ifeval ;;
    *) echo "$1" ;;
  esac
}

code_of() {
  case $1 in
    llama2) echo humaneval,mbpp ;;
    tulu3) echo humaneval_instruct,humaneval_plus ;;
  esac
}

dry='' seed=0 batch=auto template=yes unsafe='' words=()
while [ $# -gt 0 ]; do
  case $1 in
    --dry-run) dry=yes ;;
    --seed | --batch-size)
      [ $# -gt 1 ] || die 2 "$1 needs a value"
      if [ "$1" = --seed ]; then seed=$2; else batch=$2; fi
      shift ;;
    --no-chat-template) template='' ;;
    --unsafe-local) unsafe=yes ;;
    -h | --help) sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exit 0 ;;
    --) shift; break ;;
    -*) die 2 "no such option: $1; see --help" ;;
    *) words+=("$1") ;;
  esac
  shift
done
[[ $seed =~ ^[0-9]+$ ]] || die 2 "--seed must be a whole number, not $seed"
[[ $batch =~ ^(auto|[1-9][0-9]*)$ ]] || die 2 "--batch-size must be a whole number or auto, not $batch"
case ${#words[@]} in
  2) model=${words[0]} tasks=tulu3 out=${words[1]} ;;
  3) model=${words[0]} tasks=${words[1]} out=${words[2]} ;;
  *) die 2 "usage: eval-standard.sh [OPTION…] MODEL_DIR [TASKS] OUT [-- ARGUMENT…]" ;;
esac
out=${out%/}

[ -f "$model/config.json" ] || die 2 "$model is no model directory: it has no config.json"
compgen -G "$model/*.safetensors" >/dev/null || die 4 "$model has no safetensors; pickled weights are not loaded"
case $model in *[,=]*) die 2 "$model: the harness cannot take a path with a comma or an equals sign" ;; esac
[ ! -e "$out" ] || die 2 "$out is there already; remove it, or name another"
[[ $tasks =~ ^[A-Za-z0-9_.,-]+$ ]] || die 2 "TASKS must be a recipe or names with commas between, not $tasks"

code=$(code_of "$tasks")
tasks=$(tasks_of "$tasks")
if [ -n "$unsafe" ]; then
  tasks=$tasks${code:+,$code}
elif [ -n "$code" ]; then
  echo "eval-standard: left out, because they run model-written code without a sandbox: $code (--unsafe-local)" >&2
elif [[ $tasks =~ (^|,)(humaneval|mbpp) ]]; then
  die 8 "$tasks: the harness runs model-written code without a sandbox; type --unsafe-local to allow it"
fi

lm_eval=${LM_EVAL:-lm_eval}
argv=("$lm_eval" run --model hf --model_args "pretrained=$model,trust_remote_code=False" --tasks "$tasks"
      --seed "$seed" --batch_size "$batch" --output_path "$out.run" --log_samples)
if [ -n "$template" ] && { [ -f "$model/chat_template.jinja" ] || grep -qs '"chat_template"' "$model/tokenizer_config.json"; }; then
  argv+=(--apply_chat_template)
fi
[ -z "$unsafe" ] || argv+=(--confirm_run_unsafe_code)
argv+=("$@")
if [ -n "$dry" ]; then
  line=''
  for word in "${argv[@]}"; do
    [[ $word =~ ^[A-Za-z0-9_@%+=:,./-]+$ ]] || word=$(printf %q "$word")
    line+=" $word"
  done
  echo "${line# }"
  exit 0
fi
command -v "$lm_eval" >/dev/null || die 2 "$lm_eval is not here; in a virtual environment of its own: \
pip install 'lm_eval[hf,math,ifeval]', then put it on PATH or set LM_EVAL"

rm -rf "$out.run"
trap 'rm -rf "$out.run"' EXIT
mkdir -p "$out.run"
[ -z "$unsafe" ] || export HF_ALLOW_CODE_EVAL=1
"${argv[@]}" >&2 || die 1 "the harness failed; its own message is above"

# What made the numbers, and the numbers: taken from the harness's own files, so that nothing is said twice.
python3 - "$model" "$out.run" "${argv[@]}" <<'PY'
import hashlib, json, pathlib, sys

model, out, *argv = sys.argv[1:]
found = sorted(pathlib.Path(out).rglob("results_*.json"))
if not found:
    sys.exit("eval-standard: the harness wrote no results")
results = json.loads(found[-1].read_text())


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


manifest = pathlib.Path(model, "MANIFEST.json")
files = json.loads(manifest.read_text()).get("files") if manifest.is_file() else None
kinds = ("config.json", "generation_config.json", "tokenizer*", "chat_template.jinja", "*.safetensors")
named = sorted({path for kind in kinds for path in pathlib.Path(model).glob(kind)})
names = ("lm_eval_version", "transformers_version", "versions", "n-shot", "n-samples", "chat_template_sha", "task_hashes",
         "config", "date", "git_hash")
template = results.get("chat_template")
protocol = {"command": argv, "model": model, "files": files or {path.name: sha256(path) for path in named},
            "template": hashlib.sha256(template.encode()).hexdigest() if template else None,
            "harness": {name: results.get(name) for name in names}, "results": results["results"]}
pathlib.Path(out, "protocol.json").write_text(json.dumps(protocol, indent=1, ensure_ascii=False, default=str) + "\n")
PY
mv -T "$out.run" "$out" 2>/dev/null || mv "$out.run" "$out"
trap - EXIT
echo "$out"
