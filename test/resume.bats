# test/resume.bats -- trainings killed by SIGKILL at random moments and started again with the same
# command (test/kill.sh) end with the same bytes. QRUN names the program.

setup() {
    qrun=${QRUN:-build/release/qrun}
    case $qrun in /*) ;; *) qrun=$PWD/$qrun ;; esac
}

@test "within the warm-up of stable_epoch, norms held by less_bn" {
    run env QRUN="$qrun" sh test/kill.sh 3 wt_quant=lsq fm_quant=lsq bit=3 quant_variant= stable_epoch=1 less_bn=true lr=0.001 \
        synth_train=96 synth_val=32 save_every_steps=2
    echo "$output"
    [ "$status" -eq 0 ]
    [[ "$output" == *"ok 2 - 3 kills in "* ]]
}
