// The same service as guest http, on Node's own HTTP server.
const http = require('http');
const crypto = require('crypto');

const server = http.createServer((req, res) => {
  if (req.method === 'GET' && req.url === '/hello') {
    res.end('hello, world\n');
    return;
  }
  if (req.method !== 'POST' || req.url !== '/sha256') {
    res.writeHead(404);
    res.end();
    return;
  }
  const hash = crypto.createHash('sha256');
  let n = 0;
  req.on('data', (chunk) => { hash.update(chunk); n += chunk.length; });
  req.on('end', () => res.end(`${hash.digest('hex')} ${n}\n`));
});
server.listen(8080, '::', () => console.log('ready'));
