;; Does what the query's first letter says, and answers with what it finds of its own state: the sum of all
;; bytes outside of the area and the response, and a global.
;;
;;   a  nothing            d  an access outside          g  logs 5 000 long lines
;;   b  runs for ever      e  recurses without end       h  overwrites its data, its area and its globals
;;   c  unreachable        f  grows and fills memory     i  logs one line
(module
  (import "midge" "log" (func $log (param i32 i32 i32)))
  (memory (export "memory") 4)
  (global $mark (mut i32) (i32.const 7))
  (data (i32.const 64) "MDGE\01\00\00\00\00\00\01\00\00\00\01\00")
  ;; Status 200, no headers, body of 16 bytes at 1040.
  (data (i32.const 1008) "\c8\00\00\00\00\00\00\00\00\00\00\00\10\04\00\00\10\00\00\00")
  (data (i32.const 4096) "one line of a guest")
  (data (i32.const 131072) "state of the template")

  (func (export "midge_contract") (result i32) (i32.const 64))

  (func $inner_failure unreachable)
  (func $outer_failure (call $inner_failure))
  (func $recurse (param i32) (result i32)
    (i32.add (call $recurse (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))
  (func $fill_memory (local $start i32)
    (loop $next
      (local.set $start (i32.mul (memory.size) (i32.const 65536)))
      (if (i32.ne (memory.grow (i32.const 1)) (i32.const -1))
        (then
          (memory.fill (local.get $start) (i32.const 0xEE) (i32.const 65536))
          (br $next)))))
  (func $flood (local $line i32)
    (loop $next
      (call $log (i32.const 3) (i32.const 131072) (i32.const 65536))
      (local.set $line (i32.add (local.get $line) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $line) (i32.const 5000)))))
  (func $overwrite
    (memory.fill (i32.const 4096) (i32.const 0xEE) (i32.const 258048))
    (memory.fill (i32.const 64) (i32.const 0xEE) (i32.const 16))
    (global.set $mark (i32.const -1)))

  (func $sum (param $at i32) (param $end i32) (result i64) (local $sum i64)
    (loop $next
      (local.set $sum (i64.add (local.get $sum) (i64.load8_u (local.get $at))))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $at) (local.get $end))))
    (local.get $sum))
  (func $report
    (i64.store (i32.const 1040)
      (i64.add (call $sum (i32.const 0) (i32.const 1008))
        (i64.add (call $sum (i32.const 4096) (i32.const 65536))
                 (call $sum (i32.const 131072) (i32.const 262144)))))
    (i32.store (i32.const 1048) (global.get $mark))
    (i32.store (i32.const 1052) (memory.size)))

  (func (export "midge_handle") (param $request i32) (param $size i32) (result i32)
    (local $letter i32)
    (local.set $letter (i32.load8_u
      (i32.add (local.get $request) (i32.load offset=48 (local.get $request)))))
    (block $done (block $i (block $h (block $g (block $f (block $e (block $d (block $c (block $b
      (br_table $done $b $c $d $e $f $g $h $i $done (i32.sub (local.get $letter) (i32.const 97))))
      (loop $for_ever (br $for_ever)))
      (call $outer_failure))
      (drop (i32.load (i32.const 0x7fff0000))))
      (drop (call $recurse (i32.const 0))))
      (call $fill_memory) (br $done))
      (call $flood) (br $done))
      (call $overwrite) (i32.store16 (i32.const 1008) (i32.const 201)) (return (i32.const 1008)))
      (call $log (i32.const 2) (i32.const 4096) (i32.const 19)))
    (call $report)
    (i32.const 1008)))
