// Program qualifybox is PID 1 of an emulated machine that does nothing but
// measure its disks, all but the one that it was started from: a line for each on
// the second serial line.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/cistern-edge/cistern/image/appliance"
)

func main() {
	if filepath.Base(os.Args[0]) == "modprobe" {
		_ = appliance.Modprobe(os.Args[1:]) // what fails is not found, here as anywhere
		return
	}
	if err := appliance.Mounts(); err != nil {
		panic(err)
	}
	if err := appliance.Modprobe([]string{"virtio_pci", "virtio_blk", "virtio_rng"}); err != nil {
		panic(err)
	}
	line, err := os.OpenFile("/dev/ttyS1", os.O_WRONLY, 0)
	if err != nil {
		panic(err)
	}
	for _, serial := range strings.Fields("fake slow hangs") {
		began := time.Now()
		report, err := measure(serial)
		var words bytes.Buffer
		if err == nil {
			err = json.Compact(&words, report)
		}
		fmt.Fprintf(line, "qualified %s %.0f %v %s\n", serial, time.Since(began).Seconds(), err, words.Bytes())
	}
	select {}
}

// measure runs the program that everybody has. One that a disk holds back never
// ends, so its report is what is waited for.
func measure(serial string) (json.RawMessage, error) {
	device, err := find(serial)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("/bin/cistern", "hwtest", "--here", "--quick", "--json", "--erase", device, "--yes")
	cmd.Env = []string{"HOME=/tmp"}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	var report json.RawMessage
	return report, json.NewDecoder(out).Decode(&report)
}

// find waits for the disk with a serial number.
func find(serial string) (string, error) {
	for range 600 {
		files, err := filepath.Glob("/sys/block/vd*/serial")
		if err != nil {
			return "", err
		}
		for _, file := range files {
			if text, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(text)) == serial {
				return "/dev/" + filepath.Base(filepath.Dir(file)), nil
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	return "", fmt.Errorf("no disk has the serial number %s", serial)
}
