#!/bin/sh
# experiments/apot_chain.sh NET -- train NET at 32, 4, 3 and 2 bits, each stage from the best checkpoint of the one
# before. Start it again after an interruption: finished stages are not run again, the broken one continues.
set -eu

usage() {
    cat <<'END'
Usage: apot_chain.sh NET [OPTION]... [KEY=VALUE]...
Progressive quantization of NET (res20, res56) on CIFAR-10 with APoT: 32 -> 4 -> 3 -> 2 bits.

  -d DIR    data set folder or archive (dataset_dir)
  -e N      epochs of each stage instead of 300; the rate falls at N/2 and 3N/4
  -i FILE   float weights to begin with, instead of training the 32-bit stage
  -o DIR    where the run folders go (default: results)
  -q FILE   the program (default: ./qrun)
  -s BITS   stages to run (default: "32 4 3 2")
  -n        print the commands, run nothing
  -h        this text
KEY=VALUE goes to every stage, for instance threads=2.
END
}

. "$(dirname "$0")/chain.sh"

net_first "$@"
shift

stages='32 4 3 2'
options d:e:i:o:q:s:nh "$@"
shift "$used"

configs=$(dirname "$0")/../configs/apot
if [ -n "$epochs" ]; then
    half=$((epochs / 2)) late=$((epochs * 3 / 4))
    set -- "num_epochs=$epochs" "$@"
    if [ "$late" -gt "$half" ] && [ "$half" -ge 1 ]; then
        set -- "multistep_lr_milestones=[$half,$late]" "$@"
    elif [ "$half" -ge 1 ]; then
        set -- "multistep_lr_milestones=[$half]" "$@"
    fi
fi
[ -z "$data" ] || set -- "dataset_dir=$data" "$@"

# The first stage of the list begins with -i, or as its configuration says; the others with the stage before.
previous=$init
for bits in $stages; do
    [ "$bits" != 32 ] || [ -z "$init" ] || continue
    run=$out/${net}_${bits}bit
    # Stages may be run one at a time: the one before may be in the folder already.
    if [ -z "$previous" ] && [ "$bits" != 32 ]; then
        case $bits in
        4) previous=$out/${net}_32bit ;;
        *) previous=$out/${net}_$((bits + 1))bit ;;
        esac
    fi
    stage "$net $bits bit${previous:+, from $previous}" "$configs/${net}_${bits}bit.yml" "log_dir=$run" \
        ${previous:+"pretrained_file=$previous"} "$@"
    previous=$run
done
