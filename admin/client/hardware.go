package client

import (
	"context"
	"net/http"
	"time"
)

// Qualification is what a machine can do as a box, measured. Rates are bytes a
// second unless they are called bits.
type Qualification struct {
	State     string    `json:"state" enum:"none,running,done,stopped" doc:"Whether it was measured"`
	Step      string    `json:"step,omitempty" doc:"What is being measured"`
	Percent   float64   `json:"percent" doc:"How far it is"`
	Quick     bool      `json:"quick" doc:"A minute instead of a quarter of an hour: rough figures"`
	Started   time.Time `json:"started,omitzero" doc:"When it began"`
	Ended     time.Time `json:"ended,omitzero" doc:"When it was done"`
	Verdict   Verdict   `json:"verdict" doc:"What it comes to"`
	NICs      []NIC     `json:"nics" nullable:"false" doc:"Network interfaces"`
	Disk      DiskTest  `json:"disk" doc:"The disk of the data"`
	Processor Processor `json:"processor" doc:"The processor"`
	Thermal   Thermal   `json:"thermal" doc:"All cores at work for a while"`
	Memory    Memory    `json:"memory" doc:"Memory"`
	Random    Random    `json:"random" doc:"Source of random numbers"`
	Clock     Clock     `json:"clock" doc:"Clocks"`
	Watchdog  Watchdog  `json:"watchdog" doc:"What resets a machine that hangs"`
}

// States of a qualification.
const (
	QualifyNone    = "none"    // not since the start of the daemon
	QualifyRunning = "running" // being measured
	QualifyDone    = "done"
	QualifyStopped = "stopped" // ended before its end
)

// Verdict is a qualification in words.
type Verdict struct {
	Text     string    `json:"text" doc:"The verdict"`
	Fit      bool      `json:"fit" doc:"Nothing is broken"`
	Clients  int       `json:"clients" doc:"Clients that it serves at once, at 2.5 Mbit/s each"`
	BitRate  int64     `json:"bit_rate" doc:"What it can hand out, in bits each second"`
	Limit    string    `json:"limit" doc:"What keeps it from more"`
	Findings []Finding `json:"findings" nullable:"false" doc:"What was found, the worst first"`
}

// Finding is one thing that somebody should know.
type Finding struct {
	Level string `json:"level" enum:"bad,warn,unknown,ok" doc:"How bad it is"`
	Part  string `json:"part" doc:"Of what"`
	Text  string `json:"text" doc:"What was found"`
}

// Levels of a finding, the worst first.
const (
	Bad     = "bad"     // the machine is not fit
	Warn    = "warn"    // works, worse than it could
	Unknown = "unknown" // could not be measured
	Fine    = "ok"
)

// NIC is a network interface.
type NIC struct {
	Name      string        `json:"name" doc:"Interface"`
	Driver    string        `json:"driver,omitempty" doc:"Driver of the kernel"`
	Up        bool          `json:"up" doc:"A cable is in and the other side answers"`
	BitRate   int64         `json:"bit_rate" doc:"Speed of the link in bits each second, 0 if unknown"`
	Duplex    string        `json:"duplex,omitempty" doc:"full or half"`
	Offloads  []string      `json:"offloads" nullable:"false" doc:"What the card does instead of the processor"`
	Errors    uint64        `json:"errors" doc:"Frames that came damaged since the start"`
	Dropped   uint64        `json:"dropped" doc:"Frames that were dropped on their way in since the start"`
	Multicast MulticastTest `json:"multicast" doc:"Multicast as it arrives"`
	Querier   Querier       `json:"querier" doc:"Who asks for members of groups (IGMP)"`
}

// MulticastTest is how a stream of numbered packets arrived.
type MulticastTest struct {
	Path       string `json:"path" enum:",host,wire" doc:"wire: from another machine; host: never left this one; empty: not tried"`
	Sent       uint64 `json:"sent" doc:"Packets sent, as the sender says"`
	Received   uint64 `json:"received" doc:"Packets received, each counted once"`
	Lost       uint64 `json:"lost" doc:"Packets that never came"`
	Reordered  uint64 `json:"reordered" doc:"Packets that came after a later one"`
	Duplicates uint64 `json:"duplicates" doc:"Packets that came again"`
	BitRate    int64  `json:"bit_rate" doc:"Received payload in bits each second"`
	Snooping   string `json:"snooping" enum:",yes,no" doc:"Whether the switch keeps groups away that nobody joined; empty: not known"`
	Err        string `json:"err,omitempty" doc:"Why it could not be measured"`
}

// Querier is who asks for members of groups; without one, switches that snoop
// forget them.
type Querier struct {
	State   string `json:"state" enum:",present,absent" doc:"Whether there is one; empty: not known"`
	Address string `json:"address,omitempty" doc:"Its address"`
	Version int    `json:"version,omitempty" doc:"Of IGMP"`
	Err     string `json:"err,omitempty" doc:"Why it could not be measured"`
}

// DiskTest is what the disk does where the data lies.
type DiskTest struct {
	Path            string   `json:"path" doc:"Directory, or the device that was erased"`
	Device          string   `json:"device,omitempty" doc:"Block device under it"`
	Model           string   `json:"model,omitempty" doc:"What it calls itself"`
	Kind            string   `json:"kind,omitempty" doc:"nvme, ssd, disk (rotating) or mmc"`
	Bytes           int64    `json:"bytes" doc:"What it says that it holds"`
	SequentialWrite int64    `json:"sequential_write" doc:"Bytes each second past the cache"`
	SequentialRead  int64    `json:"sequential_read" doc:"Bytes each second past the cache"`
	RandomRead      int64    `json:"random_read" doc:"Bytes each second, blocks of 256 KiB, eight readers: as many clients read"`
	ReadIOPS        float64  `json:"read_iops" doc:"Blocks of 4 KiB each second, eight readers"`
	WriteIOPS       float64  `json:"write_iops" doc:"Blocks of 4 KiB each second, eight writers"`
	Fsync           Fsync    `json:"fsync" doc:"How long a small write takes until it is safe"`
	Capacity        Capacity `json:"capacity" doc:"Whether it holds what it says"`
	Wear            Wear     `json:"wear" doc:"What the disk says of itself"`
	Failed          bool     `json:"failed" doc:"It could not be measured because it does not work"`
	Err             string   `json:"err,omitempty" doc:"Why it could not be measured"`
}

// Fsync is how long fdatasync took after a write of 4 KiB, in milliseconds.
type Fsync struct {
	Count  int     `json:"count" doc:"How often it was tried"`
	Median float64 `json:"median_ms" doc:"Milliseconds"`
	P99    float64 `json:"p99_ms" doc:"Milliseconds"`
	Max    float64 `json:"max_ms" doc:"Milliseconds"`
}

// Capacity is what became of marks that were written all over.
type Capacity struct {
	Bytes   int64  `json:"bytes" doc:"Over how much they were spread"`
	Marks   int    `json:"marks" doc:"Marks read back"`
	Planned int    `json:"planned" doc:"Marks that prove it; fewer read back only make it likely"`
	Wrong   int    `json:"wrong" doc:"Marks that were not what had been written"`
	Wraps   int64  `json:"wraps,omitempty" doc:"Writes come round after so many bytes: a fake"`
	First   int64  `json:"first_wrong,omitempty" doc:"Where the first wrong one is"`
	Err     string `json:"err,omitempty" doc:"Why it could not be tried"`
}

// Wear is what a disk says of itself (SMART, NVMe, eMMC).
type Wear struct {
	Source       string `json:"source" enum:",nvme,ata,mmc" doc:"Who said it; empty: nobody"`
	PercentUsed  int    `json:"percent_used" doc:"Of the writes that it is made for; -1: unknown"`
	Failing      bool   `json:"failing" doc:"It expects to fail"`
	MediaErrors  uint64 `json:"media_errors" doc:"Errors that could not be corrected"`
	Reallocated  uint64 `json:"reallocated" doc:"Sectors that were replaced"`
	Pending      uint64 `json:"pending" doc:"Sectors that could not be read lately"`
	PowerOnHours uint64 `json:"power_on_hours" doc:"How long it has run"`
	Celsius      int    `json:"celsius" doc:"How warm it is; 0: unknown"`
	Err          string `json:"err,omitempty" doc:"Why it could not be asked"`
}

// Processor is what one core does.
type Processor struct {
	Model  string `json:"model,omitempty" doc:"What it calls itself"`
	Cores  int    `json:"cores" doc:"Cores"`
	SHA1   int64  `json:"sha1" doc:"Bytes each second and core"`
	SHA256 int64  `json:"sha256" doc:"Bytes each second and core"`
	FEC    int64  `json:"fec" doc:"Bytes each second and core for which eight packets of parity are made"`
}

// Thermal is what became of speed while all cores worked.
type Thermal struct {
	Seconds   float64 `json:"seconds" doc:"How long"`
	Celsius   float64 `json:"celsius" doc:"The warmest sensor at its warmest; 0: none"`
	Kept      float64 `json:"kept" doc:"Speed at the end as a part of that at the beginning"`
	Throttled bool    `json:"throttled" doc:"The processor says that it slowed down"`
}

// Memory is how much there is, and whether it holds what is written.
type Memory struct {
	Bytes     int64  `json:"bytes" doc:"All of it"`
	Available int64  `json:"available" doc:"What programs could have"`
	Tested    int64  `json:"tested" doc:"What patterns were written to"`
	Wrong     int    `json:"wrong" doc:"Words that came back different"`
	Corrected uint64 `json:"corrected" doc:"Errors that ECC has corrected since the start"`
}

// Random is the kernel's source of random numbers.
type Random struct {
	Hardware string  `json:"hardware,omitempty" doc:"What feeds it; empty: no device"`
	Ready    bool    `json:"ready" doc:"Nobody waits for it"`
	Millis   float64 `json:"mib_ms" doc:"How long 1 MiB of it takes, in milliseconds"`
}

// Clock is what the time comes from.
type Clock struct {
	Source       string  `json:"source,omitempty" doc:"The kernel's clock source"`
	Kept         bool    `json:"kept" doc:"A clock with a battery keeps the time while the machine is off"`
	Offset       float64 `json:"offset_s" doc:"By how many seconds that clock is off"`
	Synchronised bool    `json:"synchronised" doc:"The kernel knows that the time is right"`
	Overslept    float64 `json:"overslept_ms" doc:"The worst of 200 sleeps of 1 ms, beyond it"`
}

// Watchdog is a device that resets a machine that hangs.
type Watchdog struct {
	Present bool   `json:"present" doc:"There is one"`
	Name    string `json:"name,omitempty" doc:"What it calls itself"`
	Active  bool   `json:"active" doc:"It watches"`
}

// QualifyOrder says how to qualify.
type QualifyOrder struct {
	Quick bool `json:"quick,omitempty" doc:"A minute instead of a quarter of an hour"`
	// Wire waits so many seconds for the packets of "cistern hwtest --send" on
	// another machine.
	Wire int `json:"wire,omitempty" minimum:"0" maximum:"600" doc:"Seconds to wait for test packets of another machine"`
}

// Hardware gives the last qualification of the box's machine, or how far it is.
func (c *Client) Hardware(ctx context.Context) (Qualification, error) {
	return get[Qualification](ctx, c, "/hardware")
}

// StartQualify has the machine measured; it goes on behind the answer.
func (c *Client) StartQualify(ctx context.Context, order QualifyOrder) (Qualification, error) {
	return call[Qualification](ctx, c, http.MethodPost, "/hardware", order)
}

// StopQualify ends what StartQualify began.
func (c *Client) StopQualify(ctx context.Context) (Qualification, error) {
	return call[Qualification](ctx, c, http.MethodDelete, "/hardware", nil)
}
