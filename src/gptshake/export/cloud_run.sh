# Restores what an earlier machine has copied, trains, and copies. The training writes to the machine's own disk.
set -euo pipefail
export RCLONE_CONFIG=/dev/null RCLONE_LOCAL_NO_CHECK_UPDATED=true  # metrics.csv grows while it is copied; what was there is copied
mkdir -p ~/gptshake-work
cd ~/gptshake-work
exec 8> ~/.gptshake-running
flock -n 8 || { echo "it is running already"; exit 0; }
# Results only, without what is being written and without who is at work, which would say of a lost machine that it still is
rest=(--filter '- .*.????????' --filter '- lease.json' --filter '- run.lock' --filter '- checkpoints/**')
rest+=(--filter '+ /{runs,multirun}/**' --filter '+ /finished' --filter '- *')
checkpoints=(--filter '+ /{runs,multirun}/**/checkpoints/**' --filter '- *')
copied() {  # linked first and copied last: whenever the machine is lost, all rows of a checkpoint that was copied are there
  flock 9
  local code=0
  linked || linked || code=$?  # the training may have removed one meanwhile
  rclone sync . "$place" "${rest[@]}" && [ "$code" = 0 ] && rclone sync .checkpoints "$place" "${checkpoints[@]}"
} 9> ~/.gptshake-copying
if [ -n "$place" ] && [ ! -e restored ]; then  # a machine that was here before has newer results than the copy
  rclone copy "$place" . || [ $? = 3 ]  # 3: nothing is there yet; after any other error nothing may be copied over it
  touch restored
fi
[ ! -e finished ] || { echo "finished earlier: nothing to do"; exit 0; }
copies=
if [ -n "$place" ]; then
  copied  # a place that cannot be written to is found now and not at the end
  while sleep "$seconds" > /dev/null 2>&1 && kill -0 $$; do copied || echo "not all was copied; tried again in $seconds s"; done 8>&- &
  copies=$!
fi
timeout --kill-after=300 "$limit" "${train[@]}" 8>&- &
training=$!
trap 'kill -TERM "$training"' TERM  # it writes a checkpoint and ends; then that is copied
while kill -0 "$training" 2> /dev/null; do wait "$training" || true; done  # a signal ends `wait`, not the training
code=0
wait "$training" || code=$?
[ "$code" != 124 ] || echo "stopped after $limit, as task.hours says; the same command continues it" >&2
[ "$code" != 0 ] || touch finished
if [ -n "$copies" ]; then
  kill "$copies"
  copied || { sleep 60; copied; } || { echo "the last state could not be copied" >&2; exit 1; }
fi
exit "$code"
