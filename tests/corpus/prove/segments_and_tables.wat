;; Drops segments, copies a table over itself, grows it, and lets a global refer to another function: what
;; is not restored must lead to a technique that makes it anew.
(module
  (memory (export "memory") 2)
  (table $table 4 20 funcref)
  (global $reference (mut funcref) (ref.func $one))
  (data $segment "passive")
  (elem (i32.const 0) func $one $two)
  (elem $elements func $two $one)
  (data (i32.const 64) "MDGE\01\00\00\00\00\00\01\00\00\00\01\00")
  (func (export "midge_contract") (result i32) i32.const 64)
  (func $one) (func $two)
  (func (export "midge_handle") (param $request i32) (param i32) (result i32)
    (block $4 (block $3 (block $2 (block $1 (block $0
      (br_table $0 $1 $2 $3 $4 (i32.load8_u (local.get $request))))
      (memory.init $segment (i32.const 2048) (i32.const 0) (i32.const 7)) (data.drop $segment) (br $4))
      (table.init $table $elements (i32.const 2) (i32.const 0) (i32.const 2)) (elem.drop $elements) (br $4))
      (table.copy $table $table (i32.const 1) (i32.const 0) (i32.const 3)) (br $4))
      (drop (table.grow $table (ref.func $two) (i32.const 5)))
      (global.set $reference (table.get $table (i32.const 1))))
    (i32.const 0)))
