#!/bin/sh
# experiments/fat_res20.sh -- ResNet-20 on CIFAR-10 with FAT, 32 -> 5 -> 4 -> 3 bits: each stage starts from the best
# checkpoint of the next wider one, 5 bits from the float net. Start it again after an interruption: finished stages are
# not run again, the broken one continues.
set -eu

usage() {
    cat <<'END'
Usage: fat_res20.sh [OPTION]... [KEY=VALUE]...

  -d DIR    data set folder or archive (dataset_dir)
  -i FILE   float weights to begin with, instead of training the 32-bit stage
  -o DIR    where the run folders go (default: results)
  -q FILE   the program (default: ./qrun)
  -s BITS   stages to run (default: "32 5 4 3")
  -n        print the commands, run nothing
  -h        this text
KEY=VALUE goes to every stage, for instance num_epochs=2 lr=0.01 'multistep_lr_milestones=[1]'.
END
}

. "$(dirname "$0")/chain.sh"
stages='32 5 4 3'
options d:i:o:q:s:nh "$@"
shift "$used"

configs=$(dirname "$0")/../configs/fat
[ -z "$data" ] || set -- "dataset_dir=$data" "$@"
for bits in $stages; do
    from=
    case $bits in
    32) [ -z "$init" ] || continue ;;
    5) from=${init:-$out/fat_res20_32bit} ;;
    *) from=$out/fat_res20_$((bits + 1))bit ;;
    esac
    [ -z "$from" ] || needs "$bits bit" "$from"
    stage "res20 $bits bit${from:+, from $from}" "$configs/res20_${bits}bit.yml" "log_dir=$out/fat_res20_${bits}bit" \
        ${from:+"pretrained_file=$from"} "$@"
done
