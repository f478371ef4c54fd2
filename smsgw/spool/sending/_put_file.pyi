from smsgw.spool.sending.put_file import PutFile

put_file: PutFile
