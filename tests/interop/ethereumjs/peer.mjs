// A test peer on the real @ethereumjs/devp2p package: RLPx and eth, no discovery.
//
// Events leave as JSON lines on stdout, commands enter as JSON lines on stdin; the end of
// stdin ends the peer. Handshake, framing, snappy, status checks and disconnects are all the
// package's own code: the subclasses and the one hook below only observe.
import { randomBytes } from 'node:crypto'
import { Socket } from 'node:net'
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'

import { Hardfork, Mainnet, createCustomCommon } from '@ethereumjs/common'
import { DisconnectReasonNames, ETH, Peer, RLPx, SNAP } from '@ethereumjs/devp2p'
import { RLP } from '@ethereumjs/rlp'

const USAGE = `usage: node peer.mjs --network-id N --genesis HASH [flags]
  --key HEX          private key (32 bytes; default: random)
  --listen           listen on 127.0.0.1
  --port N           port for --listen (default 0: any free one)
  --dial ENODE       dial this enode on start (127.0.0.1 only; may be repeated)
  --network-id N     network id (= chain id), decimal or 0x hex
  --genesis HASH     genesis hash (32 bytes)
  --fork-hash HASH   our fork hash (4 bytes)
  --fork-next N      our next fork, block or time (default 0: none)
  --fork-blocks LIST fork blocks of the chain, comma separated: the package then computes
                     the fork hashes itself, and --fork-hash/--fork-next, if given, must
                     be one of them and select the current fork (default: the last one)
  --fork-times LIST  the same for fork times
  --head HASH        head hash (32 bytes; default: the genesis hash)
  --head-number N    head block number (the package's "latestBlock"; default: not given)
  --td N             total difficulty, decimal or 0x hex (default 0)
  --caps LIST        default eth/68,eth/67,eth/66; known: eth/62 to eth/68, snap/1
  --max-peers N      default 10
  --timeout MS       the package's timeout (connect, pong); default 10000
  --client-id TEXT   default: the package's own
  --status-delay MS  wait before sending our status (default 0)
  --no-status        never send our status
`

const emit = (event, fields = {}) =>
  process.stdout.write(JSON.stringify({ event, ...fields }) + '\n')
const message = (err) => (err instanceof Error ? err.message || String(err) : String(err))
const emitError = (err, fields = {}) => emit('error', { error: message(err), ...fields })

process.stdout.on('error', () => process.exit(1))
// The package throws from timers and next ticks of its own; such errors end no test.
process.on('uncaughtException', (err) => emitError(err, { where: 'uncaught', stack: err?.stack }))
process.on('unhandledRejection', (err) => emitError(err, { where: 'unhandled' }))

const toHex = (bytes) => Buffer.from(bytes).toString('hex')

function fromHex(text, what, length) {
  const digits = String(text).replace(/^0x/i, '')
  if (digits.length % 2 !== 0 || !/^[0-9a-f]*$/i.test(digits)) throw new Error(`${what}: not hex`)
  const bytes = Uint8Array.from(Buffer.from(digits, 'hex'))
  if (length !== undefined && bytes.length !== length) {
    throw new Error(`${what}: ${bytes.length} bytes, wants ${length}`)
  }
  return bytes
}

function toNumber(text, what, limit = 1n << 64n) {
  if (!/^([0-9]+|0x[0-9a-f]+)$/i.test(String(text))) throw new Error(`${what}: not a number`)
  const value = BigInt(text)
  if (value >= limit) throw new Error(`${what}: out of range`)
  return value
}

// An integer as RLP wants it: no leading zero, nothing for 0 (the package's own
// bigIntToBytes(0n) gives one zero byte).
function integerBytes(value) {
  if (value === 0n) return new Uint8Array()
  const digits = value.toString(16)
  return fromHex(digits.length % 2 ? `0${digits}` : digits, 'integer')
}

function parseEnode(text) {
  const match = /^enode:\/\/([0-9a-f]{128})@127\.0\.0\.1:([0-9]{1,5})(\?.*)?$/i.exec(String(text))
  if (match === null) throw new Error(`not an enode on 127.0.0.1: ${text}`)
  return { id: fromHex(match[1], 'enode'), address: '127.0.0.1', tcpPort: Number(match[2]) }
}

// CRC-32 carried on over one more fork (EIP-2124), for the fork after the one given.
function nextForkHash(hash, fork) {
  let crc = ~Buffer.from(hash).readUInt32BE(0)
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64BE(fork)
  for (const byte of bytes) {
    crc ^= byte
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1
  }
  const out = Buffer.alloc(4)
  out.writeUInt32BE(~crc >>> 0)
  return out
}

// ---------------------------------------------------------------------------- flags

// "-genesis" is taken as "--genesis".
const argv = process.argv.slice(2).map((arg) => (/^-[a-z]{2}/.test(arg) ? `-${arg}` : arg))
let flags
try {
  flags = parseArgs({
    args: argv,
    options: {
      key: { type: 'string' },
      listen: { type: 'boolean' },
      port: { type: 'string', default: '0' },
      dial: { type: 'string', multiple: true, default: [] },
      'network-id': { type: 'string' },
      genesis: { type: 'string' },
      'fork-hash': { type: 'string' },
      'fork-next': { type: 'string' },
      'fork-blocks': { type: 'string' },
      'fork-times': { type: 'string' },
      head: { type: 'string' },
      'head-number': { type: 'string' },
      td: { type: 'string', default: '0' },
      caps: { type: 'string', default: 'eth/68,eth/67,eth/66' },
      'max-peers': { type: 'string', default: '10' },
      timeout: { type: 'string', default: '10000' },
      'client-id': { type: 'string' },
      'status-delay': { type: 'string', default: '0' },
      'no-status': { type: 'boolean', default: false },
      help: { type: 'boolean' },
    },
  }).values
} catch (err) {
  fail(err)
}
if (flags.help) {
  process.stdout.write(USAGE)
  process.exit(0)
}

function fail(err) {
  emitError(err, { where: 'flags' })
  process.stderr.write(USAGE)
  process.exit(2)
}

// A Common for the chain of the flags. Every fork is a hardfork entry of the custom chain with
// its fork hash, so that the package's own status checks do all the judging.
function buildCommon() {
  const genesis = fromHex(flags.genesis, '--genesis', 32)
  const list = (name) =>
    (flags[name] ?? '')
      .split(',')
      .filter((item) => item !== '')
      .map((item) => toNumber(item, `--${name}`))
  const blocks = list('fork-blocks')
  const times = list('fork-times')
  const listed = flags['fork-blocks'] !== undefined || flags['fork-times'] !== undefined
  const wantHash =
    flags['fork-hash'] === undefined
      ? undefined
      : `0x${toHex(fromHex(flags['fork-hash'], '--fork-hash', 4))}`
  const wantNext =
    flags['fork-next'] === undefined ? undefined : toNumber(flags['fork-next'], '--fork-next')

  // The names carry no meaning here, only their order does; Paris gets special treatment.
  const names = Object.values(Hardfork).filter((name) => name !== Hardfork.Paris)
  const hardforks = [{ name: names[0], block: 0 }]
  const add = (fields) => {
    if (hardforks.length === names.length) throw new Error('too many forks')
    hardforks.push({ name: names[hardforks.length], ...fields })
  }
  if (listed) {
    for (const block of blocks) add({ block: String(block) })
    for (const time of times) add({ block: null, timestamp: String(time) })
  } else {
    if (wantHash === undefined) throw new Error('--fork-hash, --fork-blocks or --fork-times missing')
    hardforks[0].forkHash = wantHash
    if (wantNext) {
      const hash = nextForkHash(fromHex(wantHash, '--fork-hash', 4), wantNext)
      add({ block: String(wantNext), forkHash: `0x${toHex(hash)}` })
    }
  }

  const common = createCustomCommon(
    {
      name: 'rlpx-engine-interop',
      chainId: String(toNumber(flags['network-id'], '--network-id')),
      defaultHardfork: names[0],
      hardforks,
      bootstrapNodes: [],
      dnsNetworks: [],
    },
    Mainnet,
  )
  if (listed) {
    common.setForkHashes(genesis)
    // The package drops a hash's leading zero bytes.
    for (const fork of common.hardforks()) fork.forkHash = `0x${fork.forkHash.slice(2).padStart(8, '0')}`
    const next = (fork) => common.nextHardforkBlockOrTimestamp(fork.name) ?? 0n
    // Of several forks at one block or time the last one counts.
    const current = common
      .hardforks()
      .filter((fork) => wantHash === undefined || fork.forkHash === wantHash)
      .filter((fork) => wantNext === undefined || next(fork) === wantNext)
      .at(-1)
    if (current === undefined) throw new Error('--fork-hash/--fork-next are no fork of this chain')
    common.setHardfork(current.name)
  }
  return { common, genesis }
}

// ------------------------------------------------------------------------ protocols

const remoteId = (peer) => {
  const id = peer.getId() ?? peer._eciesSession._remotePublicKey?.subarray(1)
  return id ? toHex(id) : null
}

const reported = new WeakSet() // errors that left as a "status" event already

class ObservedETH extends ETH {
  _handleMessage(code, data) {
    this.raw = data
    this.seen = false
    try {
      super._handleMessage(code, data)
    } catch (err) {
      // A status too odd for the package to even reach its checks.
      if (code === 0 && !this.checked && !reported.has(err)) {
        const fields = { version: this.getVersion(), remote: remoteId(this._peer) }
        if (err instanceof Error) reported.add(err)
        emit('status', { ...fields, ok: false, error: message(err), status: null, raw: toHex(data) })
      }
      throw err
    }
    if (code !== 0 && !this.seen) {
      emit('ignored', { protocol: 'eth', version: this.getVersion(), code, payload: toHex(data) })
    }
  }

  _handleStatus() {
    // The package checks as soon as both statuses are there.
    if (this._status === null || this._peerStatus === null) return super._handleStatus()
    this.checked = true
    const fields = { version: this.getVersion(), remote: remoteId(this._peer) }
    const [version, networkId, td, head, genesis, forkId] = this._peerStatus
    const status = {
      version: toHex(version),
      network_id: toHex(networkId),
      td: toHex(td),
      head: toHex(head),
      genesis: toHex(genesis),
    }
    if (Array.isArray(forkId) && forkId.length === 2) {
      status.fork_hash = toHex(forkId[0])
      status.fork_next = toHex(forkId[1])
    }
    const raw = toHex(RLP.encode(this._peerStatus))
    try {
      super._handleStatus()
    } catch (err) {
      if (err instanceof Error) reported.add(err)
      emit('status', { ...fields, ok: false, error: message(err), status, raw })
      throw err
    }
    emit('status', { ...fields, ok: true, status, raw })
  }
}

class ObservedSNAP extends SNAP {
  _handleMessage(code, data) {
    this.raw = data
    super._handleMessage(code, data)
  }
}

function capability(text) {
  const name = text.trim()
  if (name === 'snap/1') return { ...SNAP.snap, constructor: ObservedSNAP }
  const base = /^eth\/[0-9]+$/.test(name) ? ETH[name.replace('/', '')] : undefined
  if (base === undefined) throw new Error(`--caps: not supported by the package: ${name}`)
  return { ...base, constructor: ObservedETH }
}

const protocolName = (protocol) => (protocol instanceof SNAP ? 'snap' : 'eth')

// The package tells of a lost peer only when the Hello exchange was over. This hook sees every
// end, also one during the handshake, with the reason that was sent or received.
const onSocketClose = Peer.prototype._onSocketClose
Peer.prototype._onSocketClose = function () {
  const stage = this._connected ? 'session' : /^(Auth|Ack)$/.test(this._state) ? 'auth' : 'hello'
  onSocketClose.call(this)
  const at = live.indexOf(this)
  if (at >= 0) live.splice(at, 1)
  const reason = this._disconnectReason ?? null
  emit('disconnected', {
    remote: remoteId(this),
    reason,
    reason_name: reason === null ? null : (DisconnectReasonNames[reason] ?? 'UNKNOWN'),
    by_us: this._disconnectWe === true,
    stage,
  })
}

// ------------------------------------------------------------------------------ run

const live = [] // peers after the Hello exchange, oldest first
let rlpx, statusOptions
try {
  for (const name of ['network-id', 'genesis']) {
    if (flags[name] === undefined) throw new Error(`--${name} missing`)
  }
  const { common, genesis } = buildCommon()
  statusOptions = {
    td: integerBytes(toNumber(flags.td, '--td', 1n << 256n)),
    bestHash: flags.head === undefined ? genesis : fromHex(flags.head, '--head', 32),
    genesisHash: genesis,
  }
  if (flags['head-number'] !== undefined) {
    statusOptions.latestBlock = integerBytes(toNumber(flags['head-number'], '--head-number'))
  }
  rlpx = new RLPx(
    flags.key === undefined ? Uint8Array.from(randomBytes(32)) : fromHex(flags.key, '--key', 32),
    {
      dpt: null,
      common,
      capabilities: flags.caps.split(',').map(capability),
      maxPeers: Number(toNumber(flags['max-peers'], '--max-peers')),
      timeout: Number(toNumber(flags.timeout, '--timeout')),
      listenPort: null,
      ...(flags['client-id'] === undefined
        ? {}
        : { clientId: Uint8Array.from(Buffer.from(flags['client-id'])) }),
    },
  )
  emit('ready', {
    id: toHex(rlpx.id),
    name: Buffer.from(rlpx.clientId).toString(),
    network_id: String(common.chainId()),
    fork_hash: common.forkHash().slice(2),
    fork_next: String(common.nextHardforkBlockOrTimestamp() ?? 0n),
    forks: common.hardforks().map((fork) => ({
      at: String(fork.timestamp ?? fork.block),
      by: fork.timestamp === undefined ? 'block' : 'time',
      hash: fork.forkHash.slice(2),
    })),
  })
} catch (err) {
  fail(err)
}

rlpx.events.on('error', (err) => emitError(err, { where: 'server' }))
rlpx.events.on('peer:error', (peer, err) => {
  if (err instanceof Error && reported.has(err)) return
  emitError(err, { where: 'peer', remote: remoteId(peer) })
})

rlpx.events.on('peer:added', (peer) => {
  const remote = remoteId(peer)
  const hello = peer.getHelloMessage()
  live.push(peer)
  emit('connected', {
    remote,
    name: hello.clientId,
    caps: hello.capabilities.map((cap) => `${cap.name}/${cap.version}`),
    shared: peer.getProtocols().map((item) => `${protocolName(item)}/${item.getVersion()}`),
    p2p: hello.protocolVersion,
    port: hello.port,
  })
  for (const protocol of peer.getProtocols()) {
    protocol.events.on('message', (code) => {
      protocol.seen = true
      const name = protocolName(protocol)
      if (name === 'eth' && code === 0) return // told of by "status"
      const payload = toHex(protocol.raw)
      emit('message', { protocol: name, version: protocol.getVersion(), code, payload, remote })
    })
    if (!(protocol instanceof ETH) || flags['no-status']) continue
    const send = () => {
      try {
        protocol.sendStatus(statusOptions)
      } catch (err) {
        // The remote's status was there first and failed the check. The package disconnects
        // so when the check runs on receipt.
        if (!reported.has(err)) emitError(err, { where: 'status', remote })
        peer.disconnect(0x10)
      }
    }
    const delay = Number(flags['status-delay'])
    if (delay > 0) setTimeout(send, delay)
    else send()
  }
})

const dial = async (enode) => rlpx.connect(parseEnode(enode))

function find(command) {
  const id = command.remote?.replace(/^0x/i, '').toLowerCase()
  const peer = live.filter((item) => id === undefined || remoteId(item) === id).at(-1)
  if (peer === undefined) throw new Error('no such peer')
  return peer
}

async function run(command) {
  switch (command.do) {
    case 'dial':
      await dial(command.enode)
      break
    case 'send': {
      const peer = find(command)
      const want = command.protocol ?? 'eth'
      const protocol = peer.getProtocols().find((item) => protocolName(item) === want)
      if (protocol === undefined) throw new Error(`no ${want} on this connection`)
      const payload = fromHex(command.payload, 'payload')
      const decoded = RLP.decode(payload)
      if (toHex(RLP.encode(decoded)) !== toHex(payload)) throw new Error('payload: not canonical')
      if (peer._closed) throw new Error('connection closing') // the package would drop it
      protocol.sendMessage(Number(command.code), decoded)
      break
    }
    case 'disconnect':
      find(command).disconnect(Number(command.reason ?? 0))
      break
    case 'quit':
      quit()
      break
    default:
      throw new Error(`unknown command: ${command.do}`)
  }
}

let quitting = false
function quit() {
  if (quitting) return
  quitting = true
  const sessions = new Set(rlpx.getPeers())
  for (const item of rlpx._peers.values()) if (item instanceof Socket) item.destroy()
  rlpx.destroy() // Disconnect(CLIENT_QUITTING) to all; closes them after 2 s, if they do not
  const started = Date.now()
  const wait = () => {
    const open = [...sessions].some((peer) => !peer._socket.destroyed)
    if (open && Date.now() - started < 3000) return setTimeout(wait, 10)
    setImmediate(() => process.exit(0))
  }
  setTimeout(wait, 10)
}

const input = createInterface({ input: process.stdin, crlfDelay: Infinity })
input.on('line', async (line) => {
  if (line.trim() === '') return
  let command
  try {
    command = JSON.parse(line)
    await run(command)
    emit('sent', { do: command.do, ...(command.do === 'send' ? { code: command.code } : {}) })
  } catch (err) {
    emitError(err, { where: 'command', do: command?.do })
  }
})
input.on('close', quit)

if (flags.listen) {
  rlpx.events.once('listening', () => {
    const { port } = rlpx._server.address()
    rlpx._listenPort = port // for our Hello; unknown before when the port is 0
    emit('listening', { enode: `enode://${toHex(rlpx.id)}@127.0.0.1:${port}` })
  })
  rlpx.listen(Number(flags.port), '127.0.0.1')
}
for (const enode of flags.dial) {
  dial(enode).catch((err) => emitError(err, { where: 'dial', enode }))
}
