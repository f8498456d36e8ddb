# Tulu 3 8B: hyper-parameters of the paper (Tables 11, 20; the 8B commands), data sets of its authors on the hub.
# RLVR is Tulu 3.1's GRPO (lr 5e-7 constant, KL 0.01, 16 samples a prompt, 48 prompts a rollout, 2 minibatches), which
# replaced the paper's PPO at this size.
MODEL ?=
override MODEL := $(or $(MODEL),meta-llama/Llama-3.1-8B)
include scripts/recipes/tulu3.hub.mk
SFT_FLAGS ?= --lr 5e-6 --schedule linear --warmup 0.03 --weight-decay 0 --batch-size 128 --micro-batch-size 1 --max-length 4096 --epochs 2 --chat-template scripts/recipes/tulu.jinja
DPO_FLAGS ?= --lr 5e-7 --schedule linear --warmup 0.1 --weight-decay 0 --batch-size 128 --micro-batch-size 1 --max-length 2048 --beta 5 --epochs 1
RLVR_FLAGS ?= --lr 5e-7 --schedule constant --kl 0.01 --group-size 16 --batch-size 384 --updates-per-rollout 2 --micro-batch-size 2 --clip-low 0.2 --clip-high 0.2 --temperature 1 --max-new-tokens 2048 --grad-clip 1 --save-every 40
