#!/bin/sh
# experiments/f8net_res18.sh -- ResNet-18 on ImageNet with F8Net: float, 8-bit fixed point, integers, ONNX; -h tells the options.
exec "$(dirname "$0")/f8net_chain.sh" res18 "$@"
