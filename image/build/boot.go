package build

import (
	"context"
	_ "embed"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/cistern-edge/cistern/image"
)

//go:embed grub.cfg
var grubCfg []byte

//go:embed CONFIG.txt
var configReadme []byte

//go:embed pi.txt
var piConfig []byte

// loaders are what an architecture's firmware starts, by the path in the
// package (as in path.Match) and the one on the ESP: Debian's signed shim, which
// starts Debian's signed GRUB. A Raspberry Pi has no UEFI: its firmware starts
// U-Boot, which starts the same shim, so that slots are chosen as everywhere.
var loaders = map[string]map[string]string{
	"amd64": {
		"usr/lib/shim/shimx64.efi.signed":                   "EFI/BOOT/BOOTX64.EFI",
		"usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed": "EFI/BOOT/GRUBX64.EFI",
	},
	"arm64": {
		"usr/lib/shim/shimaa64.efi.signed":                  "EFI/BOOT/BOOTAA64.EFI",
		"usr/lib/grub/arm64-efi-signed/grubaa64.efi.signed": "EFI/BOOT/GRUBAA64.EFI",

		"usr/lib/raspi-firmware/start4.elf":                     "start4.elf",
		"usr/lib/raspi-firmware/fixup4.dat":                     "fixup4.dat",
		"usr/lib/u-boot/rpi_arm64/u-boot.bin":                   "u-boot.bin",
		"usr/lib/linux-image-*/broadcom/bcm2711-rpi-4-b.dtb":    "bcm2711-rpi-4-b.dtb",
		"usr/lib/linux-image-*/broadcom/bcm2711-rpi-400.dtb":    "bcm2711-rpi-400.dtb",
		"usr/lib/linux-image-*/broadcom/bcm2711-rpi-cm4-io.dtb": "bcm2711-rpi-cm4.dtb",
		"usr/lib/linux-image-*/broadcom/bcm2712-rpi-5-b.dtb":    "bcm2712-rpi-5-b.dtb",
	},
}

// loader says where on the ESP a file of a package belongs; empty: nowhere.
func loader(arch, name string) string {
	for pattern, to := range loaders[arch] {
		if ok, err := path.Match(pattern, name); ok && err == nil {
			return to
		}
	}
	return ""
}

// esp makes the partition that the firmware reads.
func esp(arch string, packages map[string][]byte, date time.Time) ([]byte, error) {
	files := map[string][]byte{image.GrubCfgPath: grubCfg}
	if arch == "arm64" {
		files["config.txt"] = piConfig
	}
	for name, body := range packages {
		if to := loader(arch, name); to != "" {
			files[to] = body
		}
	}
	for from, to := range loaders[arch] {
		if files[to] == nil {
			return nil, fmt.Errorf("make the ESP: no package has %s", from)
		}
	}
	env, err := image.GrubEnv{"slot": string(image.SlotA)}.Encode()
	if err != nil {
		return nil, err
	}
	files[image.GrubEnvPath] = env
	return fat(image.Partitions()[image.PartESP-1].Size, "CISTERNESP", date, files)
}

// biosModules is what GRUB needs to get to its grub.cfg without UEFI.
var biosModules = strings.Fields("biosdisk part_gpt fat normal configfile loadenv regexp probe test linux search sleep reboot minicmd all_video echo serial")

// bios makes the boot code of sector 0 and GRUB's core image, which knows where
// it lies on the disk. They are made by grub-mkimage from the modules that
// belong to it (packages grub-common, grub-pc-bin).
func bios(ctx context.Context) (boot, core []byte, err error) {
	const dir = "/usr/lib/grub/i386-pc"
	if boot, err = os.ReadFile(filepath.Join(dir, "boot.img")); err != nil {
		return nil, nil, fmt.Errorf("make the BIOS loader (package grub-pc-bin): %w", err)
	}
	out, err := os.MkdirTemp("", "cistern-core-") // it syncs what it wrote, which a pipe cannot
	if err != nil {
		return nil, nil, fmt.Errorf("make the BIOS loader: %w", err)
	}
	defer os.RemoveAll(out)
	file := filepath.Join(out, "core.img")
	args := append([]string{"-O", "i386-pc", "-d", dir, "-p", "(,gpt1)/EFI/debian", "-o", file}, biosModules...)
	if _, err := run(ctx, "grub-mkimage", args...); err != nil {
		return nil, nil, fmt.Errorf("make the BIOS loader: %w", err)
	}
	if core, err = os.ReadFile(file); err != nil {
		return nil, nil, fmt.Errorf("make the BIOS loader: %w", err)
	}
	part := image.Partitions()[image.PartBIOS-1]
	if len(boot) != 512 || len(core) < 1024 || int64(len(core)) > part.Size {
		return nil, nil, fmt.Errorf("make the BIOS loader: %d and %d bytes", len(boot), len(core))
	}
	// boot.img reads the sector named at 0x5c; that one reads the rest, named in
	// its last twelve bytes: sector, count, segment.
	le := binary.LittleEndian
	first := uint64(part.Start / 512)
	le.PutUint64(boot[0x5c:], first)
	copy(boot[0x66:], []byte{0x90, 0x90}) // the drive is what the BIOS says
	le.PutUint64(core[0x1f4:], first+1)
	le.PutUint16(core[0x1fc:], uint16((len(core)-1)/512))
	le.PutUint16(core[0x1fe:], 0x820)
	return boot[:440], core, nil
}

// mke2fsConf says it all, so that what a machine is configured with does not
// matter. 64bit lets a file system of 64 MiB grow beyond 16 TiB.
const mke2fsConf = `[defaults]
	base_features = sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr
	inode_size = 256
	inode_ratio = 32768
	reserved_ratio = 0
[fs_types]
	ext4 = {
		features = has_journal,extent,huge_file,flex_bg,metadata_csum,64bit,dir_nlink,extra_isize
	}
	small = {
	}
`

// emptyData makes the data partition: an empty ext4 that can grow to any disk.
func emptyData(ctx context.Context, date time.Time) ([]byte, error) {
	dir, err := os.MkdirTemp("", "cistern-data-")
	if err != nil {
		return nil, fmt.Errorf("make the data partition: %w", err)
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "data")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return nil, err
	}
	if err := os.Truncate(file, image.DataSize); err != nil {
		return nil, err
	}
	conf := filepath.Join(dir, "mke2fs.conf")
	if err := os.WriteFile(conf, []byte(mke2fsConf), 0o600); err != nil {
		return nil, err
	}
	const id = "43495354-4552-4e00-8000-0000000000d0"
	cmd := exec.CommandContext(ctx, "mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-L", "cistern-data", "-U", id,
		"-E", "hash_seed="+id+",lazy_itable_init=0,nodiscard,root_owner=0:0", file)
	cmd.Env = append(os.Environ(), "E2FSPROGS_FAKE_TIME="+strconv.FormatInt(date.Unix(), 10), "SOURCE_DATE_EPOCH="+strconv.FormatInt(date.Unix(), 10),
		"MKE2FS_CONFIG="+conf, "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	// What PATH the daemon was given does not matter to LookPath.
	if cmd.Err != nil {
		cmd.Path, cmd.Err = "/usr/sbin/mke2fs", nil
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("make the data partition: mke2fs: %w: %s", err, out)
	}
	return os.ReadFile(file)
}
