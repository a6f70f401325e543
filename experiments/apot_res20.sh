#!/bin/sh
# experiments/apot_res20.sh -- ResNet-20 on CIFAR-10 with APoT, 32 -> 4 -> 3 -> 2 bits; -h tells the options.
exec "$(dirname "$0")/apot_chain.sh" res20 "$@"
