package norm

import (
	"math"
	"time"
)

// quantizeRTT encodes a round trip time in 8 bits, rounding up (RFC 5401 §4,
// RFC 5740 appendix): 1 µs to 1000 s.
func quantizeRTT(d time.Duration) uint8 {
	r := min(max(d.Seconds(), 1e-6), 1000)
	if r < 3.3e-5 {
		return uint8(r*1e6+1e-9) - 1
	}
	return uint8(min(math.Ceil(255-13*math.Log(1000/r)-1e-9), 255))
}

// unquantizeRTT is the inverse.
func unquantizeRTT(q uint8) time.Duration {
	if q < 31 {
		return time.Duration(q+1) * time.Microsecond
	}
	return time.Duration(1000 / math.Exp(float64(255-int(q))/13) * float64(time.Second))
}

// quantizeGroup encodes a group size in 4 bits, rounding up: 10 to 5e8.
func quantizeGroup(n int) uint8 {
	best := uint8(15)
	for q := range uint8(16) {
		if size := unquantizeGroup(q); size >= n && size < unquantizeGroup(best) {
			best = q
		}
	}
	return best
}

// unquantizeGroup is the inverse: bits 0-2 an exponent, bit 3 a mantissa of 5.
func unquantizeGroup(q uint8) int {
	n := 10
	for range q & 7 {
		n *= 10
	}
	if q&8 != 0 {
		n *= 5
	}
	return n
}

// quantizeRate encodes bytes per second in 16 bits: 12 of mantissa, 4 of
// decimal exponent.
func quantizeRate(rate float64) uint16 {
	if rate < 1 {
		return 0
	}
	exp := math.Floor(math.Log10(rate))
	mantissa := math.Round(rate / math.Pow(10, exp) * 4096 / 10)
	if mantissa > 4095 {
		mantissa, exp = 410, exp+1
	}
	if exp > 15 {
		return 0xffff
	}
	return uint16(mantissa)<<4 | uint16(exp)
}

// unquantizeRate is the inverse.
func unquantizeRate(q uint16) float64 {
	return float64(q>>4) * 10 / 4096 * math.Pow(10, float64(q&15))
}

// quantizeLoss encodes a fraction in 16 bits.
func quantizeLoss(fraction float64) uint16 {
	return uint16(math.Round(min(max(fraction, 0), 1) * 65535))
}
