package qualify

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/cistern-edge/cistern/admin/client"
)

// healthTimeout is how long a disk may take to answer, in milliseconds.
const healthTimeout = 5000

var errNoAnswer = errors.New("this disk says nothing of itself")

// health asks a disk, whose folder in /sys is dir, how it is.
func health(dir, name string) (client.Wear, error) {
	switch life := read(filepath.Join(dir, "device/life_time")); {
	case life != "":
		return parseMMC(life, read(filepath.Join(dir, "device/pre_eol_info")))
	case strings.HasPrefix(name, "nvme"):
		log, err := nvmeLog("/dev/" + name)
		if err != nil {
			return client.Wear{}, err
		}
		return parseNVMe(log)
	case strings.HasPrefix(name, "sd"):
		data, err := ataSmart("/dev/"+name, 0xd0) // SMART READ DATA
		if err != nil {
			return client.Wear{}, err
		}
		thresholds, err := ataSmart("/dev/"+name, 0xd1) // SMART READ THRESHOLDS
		if err != nil {
			thresholds = nil // later standards have none
		}
		return parseATA(data, thresholds)
	}
	return client.Wear{}, errNoAnswer
}

// nvmeCommand is struct nvme_passthru_cmd of linux/nvme_ioctl.h.
type nvmeCommand struct {
	opcode, flags         uint8
	_                     uint16
	nsid, cdw2, cdw3      uint32
	metadata, addr        uint64
	metadataLen, dataLen  uint32
	cdw10, cdw11, cdw12   uint32
	cdw13, cdw14, cdw15   uint32
	timeoutMillis, result uint32
}

// nvmeAdmin is NVME_IOCTL_ADMIN_CMD.
const nvmeAdmin = 0xc0484e41

// nvmeLog reads the health log (Get Log Page, identifier 2).
func nvmeLog(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("ask the disk: %w", err)
	}
	defer f.Close()
	log := make([]byte, nvmeLogBytes)
	var pin runtime.Pinner
	pin.Pin(&log[0])
	defer pin.Unpin()
	cmd := nvmeCommand{
		opcode: 0x02, nsid: 0xffffffff, addr: uint64(uintptr(unsafe.Pointer(&log[0]))), dataLen: nvmeLogBytes,
		cdw10: 0x02 | (nvmeLogBytes/4-1)<<16, timeoutMillis: healthTimeout,
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), nvmeAdmin, uintptr(unsafe.Pointer(&cmd))); errno != 0 {
		return nil, fmt.Errorf("ask the disk: %w", errno)
	}
	return log, nil
}

// sgRequest is struct sg_io_hdr of scsi/sg.h.
type sgRequest struct {
	interfaceID, direction int32
	commandLen, senseMax   uint8
	iovecs                 uint16
	dataLen                uint32
	data, command, sense   unsafe.Pointer
	timeout, flags         uint32
	packID                 int32
	user                   unsafe.Pointer
	status, masked, msg    uint8
	senseLen               uint8
	host, driver           uint16
	left, duration, info   uint32
}

const (
	sgIO         = 0x2285 // SG_IO
	sgFromDevice = -3     // SG_DXFER_FROM_DEV
)

// ataSmart runs a SMART command that reads one sector, through the SCSI layer
// (ATA PASS-THROUGH (16), SAT-3 §12.2.2).
func ataSmart(path string, feature byte) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("ask the disk: %w", err)
	}
	defer f.Close()
	data, sense := make([]byte, ataDataBytes), make([]byte, 32)
	command := [16]byte{
		0:  0x85,
		1:  4 << 1, // PIO data-in
		2:  0x0e,   // from the device, in blocks, as many as the count says
		4:  feature,
		6:  1,
		10: 0x4f, 12: 0xc2, // what SMART wants here
		14: 0xb0, // SMART
	}
	var pin runtime.Pinner
	pin.Pin(&data[0])
	pin.Pin(&sense[0])
	pin.Pin(&command[0])
	defer pin.Unpin()
	req := sgRequest{
		interfaceID: 'S', direction: sgFromDevice, commandLen: uint8(len(command)), senseMax: uint8(len(sense)), dataLen: ataDataBytes,
		data: unsafe.Pointer(&data[0]), command: unsafe.Pointer(&command[0]), sense: unsafe.Pointer(&sense[0]), timeout: healthTimeout,
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), sgIO, uintptr(unsafe.Pointer(&req))); errno != 0 {
		return nil, fmt.Errorf("ask the disk: %w", errno)
	}
	if req.status != 0 || req.host != 0 {
		return nil, errNoAnswer
	}
	return data, nil
}
