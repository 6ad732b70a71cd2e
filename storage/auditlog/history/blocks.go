package history

import (
	"iter"
	"runtime"
	"sync"
	"sync/atomic"
)

// A block is what is verified side by side: enough that the cores seldom wait
// for each other, and little enough to bound the memory.
const (
	blockRows  = 4096
	blockBytes = 8 << 20
)

// blocks gathers leaves while the block before is verified. It takes at most
// one leaf more than size: that one is refused, and no more are read.
func blocks(leaves iter.Seq2[[]byte, error], size int64) iter.Seq2[[][]byte, error] {
	type item struct {
		block [][]byte
		err   error
	}
	return func(yield func([][]byte, error) bool) {
		next, stop := make(chan item), make(chan struct{})
		var group sync.WaitGroup
		defer group.Wait()
		defer close(stop)
		send := func(block [][]byte, err error) bool {
			select {
			case next <- item{block, err}:
				return true
			case <-stop:
				return false
			}
		}
		group.Go(func() {
			defer close(next)
			var block [][]byte
			var count int64
			bytes := 0
			for leaf, err := range leaves {
				if err != nil {
					// What came before is judged first: a bad row outranks a cut file.
					if len(block) == 0 || send(block, nil) {
						send(nil, err)
					}
					return
				}
				block, bytes, count = append(block, leaf), bytes+len(leaf), count+1
				if len(block) == blockRows || bytes >= blockBytes {
					if !send(block, nil) {
						return
					}
					block, bytes = nil, 0
				}
				if count > size {
					break
				}
			}
			if len(block) > 0 {
				send(block, nil)
			}
		})
		for i := range next {
			if !yield(i.block, i.err) {
				return
			}
		}
	}
}

// each calls f for 0 to n-1, on all cores.
func each(n int, f func(i int)) {
	const step = 64
	var taken atomic.Int64
	var group sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), (n+step-1)/step) {
		group.Go(func() {
			for {
				end := int(taken.Add(step))
				for i := end - step; i < min(end, n); i++ {
					f(i)
				}
				if end >= n {
					return
				}
			}
		})
	}
	group.Wait()
}
