;; Traps after the first of two writes, and with a global that is not what it was: the state that
;; a request leaves in the middle of something is undone like any other.
(module
  (memory (export "memory") 2)
  (global $depth (mut i32) (i32.const 0))
  (data (i32.const 64) "MDGE\01\00\00\00\00\00\01\00\00\00\01\00")
  (func (export "midge_contract") (result i32) i32.const 64)
  (func (export "midge_handle") (param $request i32) (param i32) (result i32)
    (global.set $depth (i32.add (global.get $depth) (i32.const 1)))
    (i64.store (i32.const 4092) (i64.const -1))
    (if (i32.load8_u (local.get $request)) (then (unreachable)))
    (i64.store (i32.const 8188) (i64.const -1))
    (i32.const 0)))
