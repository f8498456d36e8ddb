# The tiny world's domains. Settings were chosen on the development prompts of two seeds.
TEACHER_DOMAINS := arithmetic strings constraints
TEACHER_FLAGS ?= --lr 7e-4 --schedule linear --warmup 3 --max-steps 60 --group-size 8 --batch-size 512 --micro-batch-size 128 --adam-beta2 0.99 --clip-high 0.28 --save-every 10 $(NEW)
# Beside it: the plain mean, factors from 0.5 to 1.2, and TIES at densities from 0.2 to 0.8. Whole differences (1.0) are too
# much: what helps one domain costs another.
MERGE ?= task_arithmetic
MERGE_FLAGS ?= --lambda 0.6
