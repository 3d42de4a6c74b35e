package link

import (
	"testing"
	"testing/synctest"
	"time"
)

func room16(n int) [][]byte {
	all := make([][]byte, n)
	for i := range all {
		all[i] = make([]byte, 16)
	}
	return all
}

func all(int) bool { return true }

// TestFlight: more wait until some left, whichever way they leave, and not for
// ever when nothing does.
func TestFlight(t *testing.T) {
	tests := []struct {
		name   string
		given  int
		counts func(i int) bool
		leave  func(f *flight, bufs [][]byte)
		wait   time.Duration
	}{
		{"few", flightMost - 1, all, func(*flight, [][]byte) {}, 0},
		{"written", flightMost, all, func(f *flight, b [][]byte) { f.remove(b[:1]) }, time.Millisecond},
		{"others are written", flightMost, all, func(f *flight, _ [][]byte) { f.remove(room16(9)) }, stallOpening},
		{"none leaves", flightMost, all, func(*flight, [][]byte) {}, stallOpening},
		{"none counts", 2 * flightMost, func(int) bool { return false }, func(*flight, [][]byte) {}, 0},
		{"too few count", 2 * flightMost, func(i int) bool { return i%3 == 0 }, func(*flight, [][]byte) {}, 0},
		{"one too few leaves", flightMost + 1, all, func(f *flight, b [][]byte) { f.remove(b[:1]) }, time.Millisecond + stallOpening},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, bufs := newFlight(stallOpening), room16(tt.given)
				f.add(bufs, tt.counts)
				time.AfterFunc(time.Millisecond, func() { tt.leave(f, bufs) })
				begin := time.Now()
				f.await()
				if took := time.Since(begin); took != tt.wait {
					t.Errorf("waited for %v, want %v", took, tt.wait)
				}
				synctest.Wait()
			})
		})
	}
}

// TestFlightStalls: as long as some leave now and then, none is forgotten.
func TestFlightStalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, bufs := newFlight(stallOpening), room16(flightMost+2)
		f.add(bufs, all)
		go func() {
			for i := range 3 {
				time.Sleep(stallOpening / 2)
				f.remove(bufs[i : i+1])
			}
		}()
		begin := time.Now()
		f.await()
		if took, want := time.Since(begin), 3*stallOpening/2; took != want {
			t.Errorf("waited for %v, want %v", took, want)
		}
		synctest.Wait()
	})
}
