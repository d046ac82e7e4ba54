;; Grows, writes to the last byte of the new pages, traps: size and bytes of the memory are undone, and
;; what was grown is zero again when another request grows.
(module
  (memory (export "memory") 2 9)
  (data (i32.const 64) "MDGE\01\00\00\00\00\00\01\00\00\00\01\00")
  (func (export "midge_contract") (result i32) i32.const 64)
  (func (export "midge_handle") (param $request i32) (param i32) (result i32)
    (local $at i32)
    (drop (memory.grow (i32.load8_u (local.get $request))))
    (local.set $at (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 1)))
    ;; Finds what an earlier request wrote to grown pages.
    (if (i32.load8_u (local.get $at)) (then (i32.store (i32.const 2048) (i32.const 1))))
    (i32.store8 (local.get $at) (i32.const 7))
    (if (i32.load8_u offset=1 (local.get $request)) (then (drop (i32.load (i32.const 0x7fff0000)))))
    (i32.const 0)))
