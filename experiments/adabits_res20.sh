#!/bin/sh
# experiments/adabits_res20.sh -- one ResNet-20 on CIFAR-10 for several bit widths with AdaBits: float -> joint training ->
# evaluation of each width. Start it again after an interruption: finished trainings are not run again, a broken one continues.
set -eu

usage() {
    cat <<'END'
Usage: adabits_res20.sh [OPTION]... [KEY=VALUE]...

  -d DIR    data set folder or archive (dataset_dir)
  -e N      epochs of the joint training instead of 2
  -i FILE   float weights to begin with, instead of training the float stage
  -o DIR    where the run folders go (default: results)
  -q FILE   the program (default: ./qrun)
  -s STAGES stages to run (default: "float joint test")
  -n        print the commands, run nothing
  -h        this text
KEY=VALUE goes to the joint training and the evaluation, for instance 'bits_list=[8,7,6,5,4,3,2]'.
END
}

here=$(dirname "$0")
. "$here/chain.sh"
stages='float joint test'
options d:e:i:o:q:s:nh "$@"
shift "$used"

config=$here/../configs/adabits/res20_543_finetune.yml run=$out/adabits_res20 float=$out/res20_32bit
from=${init:-$float}
for s in $stages; do
    case $s in
    float)
        [ -n "$init" ] || stage "res20 float" "$here/../configs/apot/res20_32bit.yml" "log_dir=$float" ${data:+"dataset_dir=$data"}
        ;;
    joint)
        needs "$s" "$from"
        stage "res20 joint, from $from" "$config" "log_dir=$run" "fp_pretrained_file=$from" \
            ${data:+"dataset_dir=$data"} ${epochs:+"num_epochs=$epochs"} "$@"
        ;;
    test)
        needs "$s" "$run/checkpoints"
        stage "res20 test" "$config" "log_dir=$run" test_only=true "pretrained_file=$run" ${data:+"dataset_dir=$data"} "$@"
        ;;
    *) fail "unknown stage '$s'" ;;
    esac
done
