#!/bin/sh
# experiments/apot_res56.sh -- ResNet-56 on CIFAR-10 with APoT, 32 -> 4 -> 3 -> 2 bits; -h tells the options.
exec "$(dirname "$0")/apot_chain.sh" res56 "$@"
