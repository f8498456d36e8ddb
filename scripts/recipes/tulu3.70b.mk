# Tulu 3 70B: hyper-parameters of the paper (Tables 11, 20, 21), data sets of its authors on the hub.
# The paper's RLVR at this size is PPO (lr 1e-7, batch 640, beta 0.07, 4 inner epochs); here the same learning rate,
# batch, warm-up and KL drive GRPO with 16 samples a prompt, as Tulu 3.1 did at 8B.
MODEL ?=
override MODEL := $(or $(MODEL),meta-llama/Llama-3.1-70B)
include scripts/recipes/tulu3.hub.mk
SFT_FLAGS ?= --lr 2e-6 --schedule linear --warmup 0.03 --weight-decay 0 --batch-size 128 --micro-batch-size 1 --max-length 4096 --epochs 2 --chat-template scripts/recipes/tulu.jinja
DPO_FLAGS ?= --lr 2e-7 --schedule linear --warmup 0.1 --weight-decay 0 --batch-size 128 --micro-batch-size 1 --max-length 2048 --beta 5 --epochs 1
RLVR_FLAGS ?= --lr 1e-7 --schedule linear --warmup 0.1 --kl 0.07 --group-size 16 --batch-size 640 --micro-batch-size 2 --clip-low 0.2 --clip-high 0.2 --temperature 1 --max-new-tokens 2048 --grad-clip 1 --save-every 40
