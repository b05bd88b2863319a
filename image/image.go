// Package image is the form of the appliance's disk and of its update files: the
// partitions, the environment block of the boot loader, the manifest that is
// signed, the index of kernel modules.
//
// It reads and writes these forms and touches no device of its own accord: who
// builds an image is image/build, who lives in one image/appliance. It refuses
// whatever it was handed that does not hold together, before anything is
// allocated for it. Start reading at [Partitions] and [Manifest].
package image

import "fmt"

// MiB is the unit in which partitions are laid out.
const MiB = 1 << 20

// Slot names one of the two places for a system.
type Slot string

// The two slots.
const (
	SlotA Slot = "a"
	SlotB Slot = "b"
)

// Other is the slot that s is not.
func (s Slot) Other() Slot {
	if s == SlotA {
		return SlotB
	}
	return SlotA
}

// Valid says whether s names a slot.
func (s Slot) Valid() bool { return s == SlotA || s == SlotB }

// Number is the slot's partition.
func (s Slot) Number() int {
	if s == SlotB {
		return PartSlotB
	}
	return PartSlotA
}

// Numbers of the partitions.
const (
	PartESP    = 1 // boot loaders, grub.cfg, grubenv; FAT
	PartConfig = 2 // what people put there before the first start; FAT, shown by every PC
	PartSlotA  = 3 // a whole FAT image: kernel and initrd
	PartSlotB  = 4
	PartData   = 5 // ext4, grown to the end of the disk
	PartBIOS   = 6 // GRUB's core image where there is no UEFI
)

// Files inside a slot and on the ESP.
const (
	KernelFile  = "VMLINUZ"
	InitrdFile  = "INITRD"
	GrubEnvPath = "EFI/DEBIAN/GRUBENV"
	GrubCfgPath = "EFI/DEBIAN/GRUB.CFG"
)

// SlotSize is the room of a slot in bytes: twice what a compressed image may
// be. It cannot change on boxes that are out there.
const SlotSize = 128 * MiB

// DataSize is the data partition as it is shipped, in bytes; the first start
// grows it.
const DataSize = 64 * MiB

// Types of partitions, as GUIDs are written.
const (
	typeESP   = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
	typeBasic = "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"
	typeLinux = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
	typeBIOS  = "21686148-6449-6E6F-744E-656564454649"
)

// Partitions is the layout of a fresh image, by number. The data partition is
// the last on the disk, so that it can grow. Slots are Linux partitions for the
// table: no PC offers to format them.
func Partitions() []Partition {
	layout := []struct {
		number int
		name   string
		kind   string
		size   int64
	}{
		{PartBIOS, "cistern-bios", typeBIOS, 1 * MiB},
		{PartESP, "cistern-esp", typeESP, 40 * MiB},
		{PartConfig, "CONFIG", typeBasic, 40 * MiB},
		{PartSlotA, "cistern-a", typeLinux, SlotSize},
		{PartSlotB, "cistern-b", typeLinux, SlotSize},
		{PartData, "cistern-data", typeLinux, DataSize},
	}
	parts := make([]Partition, len(layout))
	at := int64(1 * MiB)
	for _, p := range layout {
		parts[p.number-1] = Partition{
			Number: p.number, Name: p.name, Type: mustGUID(p.kind), ID: partID(p.number), Start: at, Size: p.size,
		}
		at += p.size
	}
	return parts
}

// DiskSize is the size of a fresh image in bytes: the partitions and the second
// table behind them.
func DiskSize() int64 {
	last := Partitions()[PartData-1]
	return last.Start + last.Size + MiB
}

// partID is the same in every image: an image is reproducible, and nothing
// finds a partition by its ID alone.
func partID(number int) GUID {
	return mustGUID(fmt.Sprintf("43495354-4552-4E00-8000-%012X", number))
}

func mustGUID(text string) GUID {
	g, err := ParseGUID(text)
	if err != nil {
		panic(err)
	}
	return g
}
