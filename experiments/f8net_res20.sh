#!/bin/sh
# experiments/f8net_res20.sh -- one epoch of F8Net's tiny finetuning of a ResNet-20 on CIFAR-10 (-i: its float weights), then
# integers and ONNX; -h tells the options.
exec "$(dirname "$0")/f8net_chain.sh" res20_cifar "$@"
