/* void probe(const struct state *in, struct state *out, const void *code, enum vectors v) */
	.text
	.globl probe
	.type probe,@function

	.set FLAGS, 128
	.set REDZONE, 136
	.set K, 144
	.set FX, 256
	.set ZMM, 768

	/* The frame: out, code, v, in; then all registers. */
	.set F_OUT, 0
	.set F_CODE, 8
	.set F_V, 16
	.set F_IN, 24
	.set F_RSP, 32
	.set F_FLAGS, 40
	.set F_GPR, 48
	.set FRAME, 184 /* 16-byte aligned with six pushes and the return address */

	.macro eachzmm op
	.irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
	\op \n
	.endr
	.endm
	.macro eachymm op
	.irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
	\op \n
	.endr
	.endm
	.macro eachword op
	.irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14
	\op \n
	.endr
	.endm
	.macro loadz n
	vmovdqu64 ZMM+64*\n(%rdi),%zmm\n
	.endm
	.macro storez n
	vmovdqu64 %zmm\n,ZMM+64*\n(%rdi)
	.endm
	.macro loady n
	vmovdqu ZMM+64*\n(%rdi),%ymm\n
	.endm
	.macro storey n
	vmovdqu %ymm\n,ZMM+64*\n(%rdi)
	.endm
	.macro loadk n
	kmovq K+8*\n(%rdi),%k\n
	.endm
	.macro storek n
	kmovq %k\n,K+8*\n(%rdi)
	.endm
	.macro fillword n
	mov %rax,-16-8*\n(%rsp)
	.endm
	.macro checkword n
	mov -16-8*\n(%rsp),%rdx
	xor %rcx,%rdx
	or %rdx,%rax
	.endm
	.macro copygpr n
	mov F_GPR+8*\n(%rsp),%rax
	mov %rax,8*\n(%rdi)
	.endm

probe:
	push %rbx
	push %rbp
	push %r12
	push %r13
	push %r14
	push %r15
	sub $FRAME,%rsp
	mov %rsi,F_OUT(%rsp)
	mov %rdx,F_CODE(%rsp)
	mov %rcx,F_V(%rsp)
	mov %rdi,F_IN(%rsp)
	mov %rsp,F_RSP(%rsp)
	mov FLAGS(%rdi),%rax
	mov %rax,F_FLAGS(%rsp)

	fxrstor64 FX(%rdi)
	cmp $1,%ecx
	jb 3f
	ja 2f
	eachymm loady
	jmp 3f
2:	eachzmm loadz
	.irp n,0,1,2,3,4,5,6,7
	loadk \n
	.endr
3:
	mov 8*11(%rdi),%rax
	eachword fillword

	mov 8*0(%rdi),%rax
	mov 8*1(%rdi),%rbx
	mov 8*2(%rdi),%rcx
	mov 8*3(%rdi),%rdx
	mov 8*4(%rdi),%rsi
	mov 8*6(%rdi),%rbp
	mov 8*8(%rdi),%r8
	mov 8*9(%rdi),%r9
	mov 8*10(%rdi),%r10
	mov 8*11(%rdi),%r11
	mov 8*12(%rdi),%r12
	mov 8*13(%rdi),%r13
	mov 8*14(%rdi),%r14
	mov 8*15(%rdi),%r15
	mov 8*5(%rdi),%rdi
	pushq F_FLAGS(%rsp)
	popfq
	call *F_CODE(%rsp)
	pushfq
	popq F_FLAGS(%rsp)
	cld
	mov %rax,F_GPR+8*0(%rsp)
	mov %rbx,F_GPR+8*1(%rsp)
	mov %rcx,F_GPR+8*2(%rsp)
	mov %rdx,F_GPR+8*3(%rsp)
	mov %rsi,F_GPR+8*4(%rsp)
	mov %rdi,F_GPR+8*5(%rsp)
	mov %rbp,F_GPR+8*6(%rsp)
	mov %r8,F_GPR+8*8(%rsp)
	mov %r9,F_GPR+8*9(%rsp)
	mov %r10,F_GPR+8*10(%rsp)
	mov %r11,F_GPR+8*11(%rsp)
	mov %r12,F_GPR+8*12(%rsp)
	mov %r13,F_GPR+8*13(%rsp)
	mov %r14,F_GPR+8*14(%rsp)
	mov %r15,F_GPR+8*15(%rsp)
	/* The trap flag and AC must not disturb what follows. */
	pushq $0x202
	popfq
	mov %rsp,%rax
	sub F_RSP(%rsp),%rax
	mov %rax,F_GPR+8*7(%rsp)

	mov F_OUT(%rsp),%rdi
	mov F_V(%rsp),%ecx
	fxsave64 FX(%rdi)
	cmp $1,%ecx
	jb 3f
	ja 2f
	eachymm storey
	vzeroupper
	jmp 3f
2:	eachzmm storez
	.irp n,0,1,2,3,4,5,6,7
	storek \n
	.endr
	vzeroupper
3:
	/* As the psABI wants them: x87 empty, MXCSR with its defaults. */
	fninit
	movl $0x1f80,F_V(%rsp)
	ldmxcsr F_V(%rsp)

	.irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
	copygpr \n
	.endr
	mov F_FLAGS(%rsp),%rax
	mov %rax,FLAGS(%rdi)
	mov F_IN(%rsp),%rsi
	mov 8*11(%rsi),%rcx
	xor %eax,%eax
	eachword checkword
	mov %rax,REDZONE(%rdi)

	add $FRAME,%rsp
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %rbp
	pop %rbx
	ret
	.size probe,.-probe
	.section .note.GNU-stack,"",@progbits
