package cache

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// yieldToOthers gives the goroutine a thread that runs, and reads from the disk,
// when others leave it time to. The thread ends with the goroutine.
//
// It is nice and not of SCHED_IDLE: a thread that never runs on a machine busy with
// something else would hold up the garbage collector's stop of all.
func yieldToOthers() {
	const whoProcess, classIdle = 1, 3 << 13 // ioprio_set(2)
	runtime.LockOSThread()
	// Neither failure matters: it is hashed at the common priority then.
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, 19) // of this thread (setpriority(2))
	_, _, _ = unix.Syscall(unix.SYS_IOPRIO_SET, whoProcess, 0, classIdle)
}
